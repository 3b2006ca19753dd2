//! The schema that a stream carries: JSON → a table of types.

use std::collections::HashMap;

use serde_json::Value as Json;

use crate::Error;

/// Types of a schema; the real one needs some 200.
const MAX_TYPES: usize = 16_384;
const MAX_DEPTH: usize = 64;

/// Index of a type.
pub(super) type Id = usize;

/// Fixed-size numbers, which arrays hold as plain bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    Bool,
    I8,
    U8,
    F32,
    F64,
    C32,
    C64,
}

impl Scalar {
    pub(super) const fn bytes(self) -> usize {
        match self {
            Scalar::Bool | Scalar::I8 | Scalar::U8 => 1,
            Scalar::F32 => 4,
            Scalar::F64 | Scalar::C32 => 8,
            Scalar::C64 => 16,
        }
    }
}

#[derive(Debug)]
pub(super) enum Dimensions {
    Fixed(Vec<usize>),
    Rank(usize),
    Dynamic,
}

#[derive(Debug)]
pub(super) enum Type {
    /// Stands for a type that is being compiled.
    Open,
    Scalar(Scalar),
    /// Zigzag varint, for all signed integers of more than 8 bits, dates and times.
    Signed,
    Unsigned,
    Date,
    Time,
    Text,
    Optional(Id),
    /// Tag and type of each case; `None` is the null case.
    Union(Vec<(String, Option<Id>)>),
    Vector(Id, Option<usize>),
    Array(Id, Dimensions),
    Map(Id, Id),
    Stream(Id),
    Record(Vec<(String, Id)>),
    /// How the number is written, and the symbols.
    Enum(Id, Vec<(String, i64)>),
}

/// A compiled schema.
#[derive(Debug)]
pub(super) struct Schema {
    types: Vec<Type>,
    /// Type of the protocol's header step.
    pub(super) header: Id,
    /// Type of one item of the protocol's data stream.
    pub(super) item: Id,
}

impl Schema {
    pub(super) fn get(&self, id: Id) -> &Type {
        self.types.get(id).unwrap_or(&Type::Open)
    }

    /// Compiles the schema of the `Mrd` protocol.
    pub(super) fn parse(text: &str) -> Result<Schema, Error> {
        let json: Json =
            serde_json::from_str(text).map_err(|e| malformed(e.to_string(), "JSON"))?;
        let protocol = json
            .pointer("/protocol/name")
            .and_then(Json::as_str)
            .unwrap_or("none");
        if protocol != "Mrd" {
            return Err(malformed(
                format!("the protocol {protocol}"),
                "the protocol Mrd",
            ));
        }
        let mut named = HashMap::new();
        for item in json
            .get("types")
            .and_then(Json::as_array)
            .into_iter()
            .flatten()
        {
            if let Some(name) = item.get("name").and_then(Json::as_str) {
                named.insert(name, item);
            }
        }
        let mut c = Compiler {
            named,
            types: Vec::new(),
            known: HashMap::new(),
        };
        let none = HashMap::new();
        let mut steps = HashMap::new();
        for step in json
            .pointer("/protocol/sequence")
            .and_then(Json::as_array)
            .into_iter()
            .flatten()
        {
            if let (Some(name), Some(ty)) =
                (step.get("name").and_then(Json::as_str), step.get("type"))
            {
                steps.insert(name, c.compile(ty, &none, 0)?);
            }
        }
        let step = |name: &str| {
            steps
                .get(name)
                .copied()
                .ok_or_else(|| malformed("a protocol without it".into(), name))
        };
        let header = step("header")?;
        let data = step("data")?;
        let item = match c.types.get(data) {
            Some(Type::Stream(item)) => *item,
            _ => {
                return Err(malformed(
                    "data that is no stream".into(),
                    "a stream of items",
                ));
            }
        };
        let schema = Schema {
            types: c.types,
            header,
            item,
        };
        schema.check_sizes()?;
        Ok(schema)
    }

    /// Elements of repeated types must take at least a byte: else a length alone could keep us busy for ever.
    fn check_sizes(&self) -> Result<(), Error> {
        for ty in &self.types {
            let item = match ty {
                Type::Vector(item, _)
                | Type::Array(item, _)
                | Type::Stream(item)
                | Type::Map(item, _) => *item,
                _ => continue,
            };
            if self.is_empty(item, 0) {
                return Err(malformed(
                    "a list of elements without bytes".into(),
                    "elements of at least a byte",
                ));
            }
        }
        Ok(())
    }

    fn is_empty(&self, id: Id, depth: usize) -> bool {
        if depth > MAX_DEPTH {
            return true;
        }
        match self.get(id) {
            Type::Record(fields) => fields.iter().all(|(_, f)| self.is_empty(*f, depth + 1)),
            Type::Vector(item, Some(n)) => *n == 0 || self.is_empty(*item, depth + 1),
            Type::Array(item, Dimensions::Fixed(d)) => {
                d.contains(&0) || self.is_empty(*item, depth + 1)
            }
            Type::Array(_, Dimensions::Rank(0)) | Type::Open => true,
            _ => false,
        }
    }
}

fn malformed(found: String, needed: &str) -> Error {
    Error::Malformed {
        place: "schema of the stream".into(),
        found,
        needed: needed.to_owned(),
    }
}

struct Compiler<'a> {
    named: HashMap<&'a str, &'a Json>,
    types: Vec<Type>,
    /// Named types without parameters that are done.
    known: HashMap<&'a str, Id>,
}

impl<'a> Compiler<'a> {
    fn add(&mut self, ty: Type) -> Result<Id, Error> {
        if self.types.len() >= MAX_TYPES {
            return Err(malformed(format!("more than {MAX_TYPES} types"), "fewer"));
        }
        self.types.push(ty);
        Ok(self.types.len() - 1)
    }

    fn compile(
        &mut self,
        json: &'a Json,
        arguments: &HashMap<&'a str, Id>,
        depth: usize,
    ) -> Result<Id, Error> {
        if depth > MAX_DEPTH {
            return Err(malformed(
                format!("types nested more than {MAX_DEPTH} deep"),
                "types that do not hold themselves",
            ));
        }
        let next = depth + 1;
        match json {
            Json::String(name) => self.by_name(name, &[], arguments, next),
            Json::Array(cases) => self.union(cases, arguments, next),
            Json::Object(o) => {
                if let Some(name) = o.get("name").and_then(Json::as_str) {
                    let of = o
                        .get("typeArguments")
                        .and_then(Json::as_array)
                        .map_or(&[][..], Vec::as_slice);
                    return self.by_name(name, of, arguments, next);
                }
                let (kind, body) = o
                    .iter()
                    .next()
                    .ok_or_else(|| malformed("{}".into(), "a type"))?;
                let items = |c: &mut Self, name: &str| {
                    let of = body
                        .get(name)
                        .ok_or_else(|| malformed(format!("{kind} without {name}"), name))?;
                    c.compile(of, arguments, next)
                };
                let ty = match kind.as_str() {
                    "vector" => {
                        let item = items(self, "items")?;
                        Type::Vector(item, body.get("length").and_then(length))
                    }
                    "stream" => Type::Stream(items(self, "items")?),
                    "map" => Type::Map(items(self, "keys")?, items(self, "values")?),
                    "array" => {
                        let item = items(self, "items")?;
                        Type::Array(item, dimensions(body.get("dimensions"))?)
                    }
                    other => {
                        return Err(malformed(
                            format!("a type of kind {other}"),
                            "vector, array, map or stream",
                        ));
                    }
                };
                self.add(ty)
            }
            other => Err(malformed(
                format!("the type {other}"),
                "a name, a list or an object",
            )),
        }
    }

    fn union(
        &mut self,
        cases: &'a [Json],
        arguments: &HashMap<&'a str, Id>,
        depth: usize,
    ) -> Result<Id, Error> {
        if let [Json::Null, only] = cases
            && only.get("tag").is_none()
        {
            let of = self.compile(only, arguments, depth)?;
            return self.add(Type::Optional(of));
        }
        let mut compiled = Vec::new();
        for case in cases {
            compiled.push(
                match (
                    case,
                    case.get("tag").and_then(Json::as_str),
                    case.get("type"),
                ) {
                    (Json::Null, ..) => (String::new(), None),
                    (_, Some(tag), Some(ty)) => {
                        (tag.to_owned(), Some(self.compile(ty, arguments, depth)?))
                    }
                    (other, ..) => (String::new(), Some(self.compile(other, arguments, depth)?)),
                },
            );
        }
        self.add(Type::Union(compiled))
    }

    fn by_name(
        &mut self,
        name: &'a str,
        of: &'a [Json],
        arguments: &HashMap<&'a str, Id>,
        depth: usize,
    ) -> Result<Id, Error> {
        if let Some(&id) = arguments.get(name) {
            return Ok(id);
        }
        if let Some(ty) = primitive(name) {
            return self.add(ty);
        }
        let short = name.rsplit('.').next().unwrap_or(name);
        if of.is_empty()
            && let Some(&id) = self.known.get(short)
        {
            return match self.types.get(id) {
                Some(Type::Open) => Err(malformed(
                    format!("{short}, which holds itself"),
                    "types that end",
                )),
                _ => Ok(id),
            };
        }
        let definition = *self
            .named
            .get(short)
            .ok_or_else(|| malformed(format!("the unknown type {name}"), "its definition"))?;
        let mut inner = HashMap::new();
        let parameters = definition.get("typeParameters").and_then(Json::as_array);
        for (parameter, argument) in parameters.into_iter().flatten().zip(of) {
            if let Some(parameter) = parameter.as_str() {
                let id = self.compile(argument, arguments, depth)?;
                inner.insert(parameter, id);
            }
        }
        let open = self.add(Type::Open)?;
        if of.is_empty() {
            self.known.insert(short, open);
        }
        let id = self.define(definition, &inner, depth)?;
        if of.is_empty() {
            self.known.insert(short, id);
        }
        Ok(id)
    }

    fn define(
        &mut self,
        definition: &'a Json,
        arguments: &HashMap<&'a str, Id>,
        depth: usize,
    ) -> Result<Id, Error> {
        if let Some(fields) = definition.get("fields").and_then(Json::as_array) {
            let mut compiled = Vec::new();
            for field in fields {
                let name = field.get("name").and_then(Json::as_str).unwrap_or_default();
                let ty = field.get("type").ok_or_else(|| {
                    malformed(format!("the field {name} without a type"), "a type")
                })?;
                compiled.push((name.to_owned(), self.compile(ty, arguments, depth)?));
            }
            return self.add(Type::Record(compiled));
        }
        if let Some(values) = definition.get("values").and_then(Json::as_array) {
            // Without a base, an enumeration is a 32-bit integer.
            let base = match definition.get("base") {
                Some(base) => self.compile(base, arguments, depth)?,
                None => self.add(Type::Signed)?,
            };
            let symbol = |v: &Json| {
                Some((
                    v.get("symbol")?.as_str()?.to_owned(),
                    v.get("value")?.as_i64()?,
                ))
            };
            return self.add(Type::Enum(base, values.iter().filter_map(symbol).collect()));
        }
        let ty = definition.get("type").ok_or_else(|| {
            malformed("a definition of nothing".into(), "fields, values or a type")
        })?;
        self.compile(ty, arguments, depth)
    }
}

fn length(json: &Json) -> Option<usize> {
    usize::try_from(json.as_u64()?).ok()
}

fn dimensions(json: Option<&Json>) -> Result<Dimensions, Error> {
    match json {
        None | Some(Json::Null) => Ok(Dimensions::Dynamic),
        Some(Json::Array(list)) => {
            let fixed: Option<Vec<usize>> = list
                .iter()
                .map(|d| d.get("length").and_then(length))
                .collect();
            Ok(match fixed {
                Some(fixed) if !fixed.is_empty() => Dimensions::Fixed(fixed),
                _ => Dimensions::Rank(list.len()),
            })
        }
        Some(n) => match length(n) {
            Some(rank) if rank <= 32 => Ok(Dimensions::Rank(rank)),
            _ => Err(malformed(
                format!("dimensions {n}"),
                "a list or a number up to 32",
            )),
        },
    }
}

fn primitive(name: &str) -> Option<Type> {
    Some(match name {
        "bool" => Type::Scalar(Scalar::Bool),
        "int8" => Type::Scalar(Scalar::I8),
        "uint8" => Type::Scalar(Scalar::U8),
        "int16" | "int32" | "int64" => Type::Signed,
        "uint16" | "uint32" | "uint64" | "size" => Type::Unsigned,
        "float32" => Type::Scalar(Scalar::F32),
        "float64" => Type::Scalar(Scalar::F64),
        "complexfloat32" => Type::Scalar(Scalar::C32),
        "complexfloat64" => Type::Scalar(Scalar::C64),
        "string" => Type::Text,
        "date" => Type::Date,
        "time" | "datetime" => Type::Time,
        _ => return None,
    })
}
