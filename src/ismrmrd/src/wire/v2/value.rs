//! Bytes → values and back, as the schema says.

use std::borrow::Cow;

use super::schema::{Dimensions, Id, Scalar, Schema, Type};
use crate::{Error, Limits};

/// Values of one item that are held as a tree; a bucket of 10,000 acquisitions needs about a million.
const MAX_VALUES: usize = 1 << 22;
const MAX_DEPTH: usize = 64;

/// So many more bytes are needed, at least.
#[derive(Clone, Copy, Debug)]
pub(super) struct Short(pub(super) usize);

/// Why decoding stops.
#[derive(Debug)]
pub(super) enum Stop {
    Short(Short),
    Error(Error),
}

impl Stop {
    pub(super) fn malformed(place: &str, found: String, needed: &str) -> Stop {
        Stop::Error(Error::Malformed {
            place: place.to_owned(),
            found,
            needed: needed.to_owned(),
        })
    }
}

impl From<Error> for Stop {
    fn from(e: Error) -> Self {
        Stop::Error(e)
    }
}

/// A decoded value, borrowing text and array data from the buffer.
#[derive(Debug)]
pub(super) enum Value<'a> {
    Null,
    Signed(i64),
    Unsigned(u64),
    Real(f64),
    Complex(f64, f64),
    /// Days since 1970.
    Date(i64),
    /// Nanoseconds since midnight.
    Time(i64),
    Text(Cow<'a, str>),
    List(Vec<Value<'a>>),
    /// An array of fixed-size numbers: extents, slowest first, and its bytes.
    Array(Vec<usize>, Scalar, Cow<'a, [u8]>),
    /// An array of anything else.
    Items(Vec<usize>, Vec<Value<'a>>),
    Map(Vec<(Value<'a>, Value<'a>)>),
    Record(Id, Vec<Value<'a>>),
    /// Union and case number.
    Case(Id, usize, Box<Value<'a>>),
    /// Enumeration and number.
    Symbol(Id, i64),
}

/// A place in a buffer.
pub(super) struct Cursor<'a> {
    buf: &'a [u8],
    at: usize,
    values: usize,
    depth: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(buf: &'a [u8]) -> Self {
        Self {
            buf,
            at: 0,
            values: 0,
            depth: 0,
        }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn bytes(&mut self, n: usize) -> Result<&'a [u8], Stop> {
        let end = self.at.saturating_add(n);
        match self.buf.get(self.at..end) {
            Some(bytes) => {
                self.at = end;
                Ok(bytes)
            }
            None => Err(Stop::Short(Short(end - self.buf.len()))),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        self.bytes(N)?
            .first_chunk()
            .copied()
            .ok_or(Stop::Short(Short(N)))
    }

    pub(super) fn u32_fixed(&mut self) -> Result<u32, Stop> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn varint(&mut self) -> Result<u64, Stop> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Stop::malformed(
            "integer",
            "more than 64 bits".into(),
            "an integer of at most 10 bytes",
        ))
    }

    fn signed(&mut self) -> Result<i64, Stop> {
        let z = self.varint()?;
        Ok((z >> 1).cast_signed() ^ -((z & 1).cast_signed()))
    }

    pub(super) fn text(&mut self, limit: usize) -> Result<&'a str, Stop> {
        let n = self.varint()?;
        let n = within(n, "bytes of a text", limit)?;
        let bytes = self.bytes(n)?;
        std::str::from_utf8(bytes).map_err(|e| Stop::malformed("text", e.to_string(), "UTF-8"))
    }

    /// A count of elements that take at least a byte each.
    fn count(&mut self, limits: &Limits) -> Result<usize, Stop> {
        let n = self.varint()?;
        let n = within(n, "elements of a list", limits.image_bytes)?;
        self.enough(n)?;
        Ok(n)
    }

    fn enough(&self, bytes: usize) -> Result<(), Stop> {
        let left = self.buf.len() - self.at;
        if bytes > left {
            Err(Stop::Short(Short(bytes - left)))
        } else {
            Ok(())
        }
    }

    pub(super) fn value(
        &mut self,
        schema: &Schema,
        id: Id,
        limits: &Limits,
    ) -> Result<Value<'a>, Stop> {
        self.values += 1;
        if self.values > MAX_VALUES || self.depth > MAX_DEPTH {
            return Err(Error::TooLarge {
                what: "values in one item of the stream",
                declared: self.values as u64,
                limit: MAX_VALUES as u64,
            }
            .into());
        }
        self.depth += 1;
        let value = self.of_type(schema, id, limits);
        self.depth -= 1;
        value
    }

    fn of_type(&mut self, schema: &Schema, id: Id, limits: &Limits) -> Result<Value<'a>, Stop> {
        Ok(match schema.get(id) {
            Type::Open => {
                return Err(Stop::malformed(
                    "schema of the stream",
                    "an open type".into(),
                    "types that end",
                ));
            }
            Type::Scalar(s) => match s {
                Scalar::Bool | Scalar::U8 => {
                    Value::Unsigned(u64::from(u8::from_le_bytes(self.array()?)))
                }
                Scalar::I8 => Value::Signed(i64::from(i8::from_le_bytes(self.array()?))),
                Scalar::F32 => Value::Real(f64::from(f32::from_le_bytes(self.array()?))),
                Scalar::F64 => Value::Real(f64::from_le_bytes(self.array()?)),
                Scalar::C32 => {
                    let mut part = || Ok::<_, Stop>(f64::from(f32::from_le_bytes(self.array()?)));
                    Value::Complex(part()?, part()?)
                }
                Scalar::C64 => {
                    let mut part = || Ok::<_, Stop>(f64::from_le_bytes(self.array()?));
                    Value::Complex(part()?, part()?)
                }
            },
            Type::Signed => Value::Signed(self.signed()?),
            Type::Unsigned => Value::Unsigned(self.varint()?),
            Type::Date => Value::Date(self.signed()?),
            Type::Time => Value::Time(self.signed()?),
            Type::Text => Value::Text(Cow::Borrowed(self.text(limits.xml_bytes)?)),
            Type::Optional(of) => match self.array()? {
                [0] => Value::Null,
                [1] => self.value(schema, *of, limits)?,
                [other] => {
                    return Err(Stop::malformed(
                        "optional value",
                        other.to_string(),
                        "0 or 1",
                    ));
                }
            },
            Type::Union(cases) => {
                let [index] = self.array()?;
                match cases.get(usize::from(index)) {
                    Some((_, None)) => Value::Null,
                    Some((_, Some(of))) => {
                        Value::Case(id, index.into(), Box::new(self.value(schema, *of, limits)?))
                    }
                    None => {
                        let needed = format!("a case from 0 to {}", cases.len().saturating_sub(1));
                        return Err(Stop::malformed("kind of item", index.to_string(), &needed));
                    }
                }
            }
            Type::Vector(of, length) => {
                let n = match length {
                    Some(n) => *n,
                    None => self.count(limits)?,
                };
                Value::List(self.list(schema, *of, n, limits)?)
            }
            Type::Array(of, dimensions) => {
                let shape = self.shape(dimensions, limits)?;
                let count = shape
                    .iter()
                    .try_fold(1_usize, |n, &m| n.checked_mul(m))
                    .unwrap_or(usize::MAX);
                match schema.get(*of) {
                    Type::Scalar(s) => {
                        let bytes = within(
                            count.saturating_mul(s.bytes()) as u64,
                            "bytes of an array",
                            limits.image_bytes,
                        )?;
                        Value::Array(shape, *s, Cow::Borrowed(self.bytes(bytes)?))
                    }
                    _ => {
                        let count =
                            within(count as u64, "elements of an array", limits.image_bytes)?;
                        self.enough(count)?;
                        Value::Items(shape, self.list(schema, *of, count, limits)?)
                    }
                }
            }
            Type::Map(keys, values) => {
                let n = self.count(limits)?;
                let mut map = Vec::new();
                for _ in 0..n {
                    let key = self.value(schema, *keys, limits)?;
                    map.push((key, self.value(schema, *values, limits)?));
                }
                Value::Map(map)
            }
            Type::Stream(_) => {
                return Err(Stop::malformed(
                    "schema of the stream",
                    "a stream in an item".into(),
                    "none",
                ));
            }
            Type::Record(fields) => {
                let mut values = Vec::with_capacity(fields.len());
                for (_, of) in fields {
                    values.push(self.value(schema, *of, limits)?);
                }
                Value::Record(id, values)
            }
            Type::Enum(base, _) => match self.value(schema, *base, limits)? {
                Value::Signed(v) => Value::Symbol(id, v),
                Value::Unsigned(v) => Value::Symbol(id, v.cast_signed()),
                _ => {
                    return Err(Stop::malformed(
                        "schema of the stream",
                        "an enumeration of no integers".into(),
                        "integers",
                    ));
                }
            },
        })
    }

    fn list(
        &mut self,
        schema: &Schema,
        of: Id,
        n: usize,
        limits: &Limits,
    ) -> Result<Vec<Value<'a>>, Stop> {
        let mut list = Vec::new();
        for _ in 0..n {
            list.push(self.value(schema, of, limits)?);
        }
        Ok(list)
    }

    fn shape(&mut self, dimensions: &Dimensions, limits: &Limits) -> Result<Vec<usize>, Stop> {
        let rank = match dimensions {
            Dimensions::Fixed(shape) => return Ok(shape.clone()),
            Dimensions::Rank(rank) => *rank,
            Dimensions::Dynamic => {
                let rank = self.varint()?;
                within(rank, "axes of an array", 32)?
            }
        };
        let mut shape = Vec::new();
        for _ in 0..rank {
            let n = self.varint()?;
            shape.push(within(n, "extent of an array", limits.image_bytes)?);
        }
        Ok(shape)
    }
}

fn within(declared: u64, what: &'static str, limit: usize) -> Result<usize, Error> {
    match usize::try_from(declared) {
        Ok(n) if n <= limit => Ok(n),
        _ => Err(Error::TooLarge {
            what,
            declared,
            limit: limit as u64,
        }),
    }
}

/// Appends a value as the schema says: what [`Cursor::value`] reads back.
///
/// # Errors
/// [`Error::Malformed`] for a value that is not of the type.
pub(super) fn put(
    schema: &Schema,
    id: Id,
    value: &Value<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let wrong = || Error::Malformed {
        place: "value to be written".into(),
        found: format!("{value:.60?}"),
        needed: format!("{:.60?}", schema.get(id)),
    };
    match (schema.get(id), value) {
        (Type::Scalar(scalar), value) => match (scalar, value) {
            (Scalar::Bool | Scalar::U8, Value::Unsigned(v)) => {
                out.push(u8::try_from(*v).map_err(|_| wrong())?);
            }
            (Scalar::I8, Value::Signed(v)) => {
                out.extend(i8::try_from(*v).map_err(|_| wrong())?.to_le_bytes());
            }
            (Scalar::F32, Value::Real(v)) => out.extend((*v as f32).to_le_bytes()),
            (Scalar::F64, Value::Real(v)) => out.extend(v.to_le_bytes()),
            (Scalar::C32, Value::Complex(re, im)) => {
                out.extend((*re as f32).to_le_bytes());
                out.extend((*im as f32).to_le_bytes());
            }
            (Scalar::C64, Value::Complex(re, im)) => {
                out.extend(re.to_le_bytes());
                out.extend(im.to_le_bytes());
            }
            _ => return Err(wrong()),
        },
        (Type::Signed, Value::Signed(v))
        | (Type::Date, Value::Date(v))
        | (Type::Time, Value::Time(v)) => put_signed(*v, out),
        (Type::Unsigned, Value::Unsigned(v)) => put_varint(*v, out),
        (Type::Text, Value::Text(text)) => {
            put_varint(text.len() as u64, out);
            out.extend(text.as_bytes());
        }
        (Type::Optional(_), Value::Null) => out.push(0),
        (Type::Optional(of), value) => {
            out.push(1);
            put(schema, *of, value, out)?;
        }
        (Type::Union(cases), Value::Null) => {
            let index = cases.iter().position(|c| c.1.is_none()).ok_or_else(wrong)?;
            out.push(u8::try_from(index).map_err(|_| wrong())?);
        }
        (Type::Union(cases), Value::Case(_, index, inner)) => match cases.get(*index) {
            Some((_, Some(of))) => {
                out.push(u8::try_from(*index).map_err(|_| wrong())?);
                put(schema, *of, inner, out)?;
            }
            _ => return Err(wrong()),
        },
        (Type::Vector(of, length), Value::List(list)) => {
            match length {
                Some(n) if *n != list.len() => return Err(wrong()),
                Some(_) => {}
                None => put_varint(list.len() as u64, out),
            }
            for value in list {
                put(schema, *of, value, out)?;
            }
        }
        (Type::Array(of, dimensions), Value::Array(shape, scalar, bytes)) => {
            match schema.get(*of) {
                Type::Scalar(s) if s == scalar => {}
                _ => return Err(wrong()),
            }
            if !put_shape(dimensions, shape, out) {
                return Err(wrong());
            }
            out.extend_from_slice(bytes);
        }
        (Type::Array(of, dimensions), Value::Items(shape, list)) => {
            if !put_shape(dimensions, shape, out) {
                return Err(wrong());
            }
            for value in list {
                put(schema, *of, value, out)?;
            }
        }
        (Type::Map(keys, values), Value::Map(map)) => {
            put_varint(map.len() as u64, out);
            for (key, value) in map {
                put(schema, *keys, key, out)?;
                put(schema, *values, value, out)?;
            }
        }
        (Type::Record(fields), Value::Record(_, values)) if fields.len() == values.len() => {
            for ((_, of), value) in fields.iter().zip(values) {
                put(schema, *of, value, out)?;
            }
        }
        (Type::Enum(base, _), Value::Symbol(_, v)) => {
            let value = match schema.get(*base) {
                Type::Unsigned | Type::Scalar(Scalar::U8) => Value::Unsigned(v.cast_unsigned()),
                _ => Value::Signed(*v),
            };
            put(schema, *base, &value, out)?;
        }
        _ => return Err(wrong()),
    }
    Ok(())
}

/// Writes the extents that the type leaves open; false when they contradict it.
fn put_shape(dimensions: &Dimensions, shape: &[usize], out: &mut Vec<u8>) -> bool {
    match dimensions {
        Dimensions::Fixed(fixed) => return fixed == shape,
        Dimensions::Rank(rank) if *rank != shape.len() => return false,
        Dimensions::Rank(_) => {}
        Dimensions::Dynamic => put_varint(shape.len() as u64, out),
    }
    for &n in shape {
        put_varint(n as u64, out);
    }
    true
}

pub(super) fn put_varint(mut v: u64, out: &mut Vec<u8>) {
    while v >= 0x80 {
        out.push((v & 0x7f) as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

fn put_signed(v: i64, out: &mut Vec<u8>) {
    put_varint(((v << 1) ^ (v >> 63)).cast_unsigned(), out);
}
