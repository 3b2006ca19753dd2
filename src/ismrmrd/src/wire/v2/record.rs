//! A value of the stream as a record whose fields are asked for by name.

use super::super::decode::values;
use super::schema::{Scalar, Schema, Type};
use super::value::Value;
use crate::Error;

/// A record whose fields are asked for by name.
#[derive(Clone, Copy)]
pub(super) struct Record<'s, 'v> {
    pub(super) schema: &'s Schema,
    pub(super) value: &'v Value<'v>,
}

pub(super) type Result_<T> = Result<T, Error>;

pub(super) fn malformed(place: &str, found: impl Into<String>, needed: &str) -> Error {
    Error::Malformed {
        place: place.to_owned(),
        found: found.into(),
        needed: needed.to_owned(),
    }
}

pub(super) fn narrow<T: TryFrom<u64>>(value: u64, place: &str) -> Result_<T> {
    T::try_from(value).map_err(|_| {
        malformed(
            place,
            value.to_string(),
            "a value that an ISMRMRD header can hold",
        )
    })
}

/// Nanoseconds as a v1 time stamp: milliseconds, modulo 2³².
fn milliseconds(ns: u64) -> u32 {
    (((ns + 500_000) / 1_000_000) & u64::from(u32::MAX)) as u32
}

impl<'s, 'v> Record<'s, 'v> {
    pub(super) fn new(schema: &'s Schema, value: &'v Value<'v>) -> Self {
        Self { schema, value }
    }

    /// The field of this name, unless it is absent or null.
    pub(super) fn field(&self, name: &str) -> Option<&'v Value<'v>> {
        let Value::Record(id, values) = self.value else {
            return None;
        };
        let Type::Record(fields) = self.schema.get(*id) else {
            return None;
        };
        let at = fields.iter().position(|(n, _)| n == name)?;
        values.get(at).filter(|v| !matches!(v, Value::Null))
    }

    pub(super) fn sub(&self, name: &str) -> Option<Record<'s, 'v>> {
        Some(Record {
            schema: self.schema,
            value: self.field(name)?,
        })
    }

    pub(super) fn needed(&self, name: &str) -> Result_<Record<'s, 'v>> {
        self.sub(name)
            .ok_or_else(|| malformed(name, "nothing", "the field"))
    }

    pub(super) fn list(&self, name: &str) -> &'v [Value<'v>] {
        match self.field(name) {
            Some(Value::List(list)) => list,
            _ => &[],
        }
    }

    pub(super) fn records(&self, name: &str) -> Vec<Record<'s, 'v>> {
        self.list(name)
            .iter()
            .map(|value| Record {
                schema: self.schema,
                value,
            })
            .collect()
    }

    pub(super) fn unsigned(&self, name: &str) -> Option<u64> {
        match self.field(name)? {
            Value::Unsigned(v) => Some(*v),
            Value::Symbol(_, v) => Some(v.cast_unsigned()),
            _ => None,
        }
    }

    pub(super) fn small<T: TryFrom<u64> + Default>(&self, name: &str) -> Result_<T> {
        self.unsigned(name)
            .map_or(Ok(T::default()), |v| narrow(v, name))
    }

    pub(super) fn signed(&self, name: &str) -> Option<i64> {
        match self.field(name)? {
            Value::Signed(v) => Some(*v),
            _ => None,
        }
    }

    pub(super) fn real(&self, name: &str) -> Option<f32> {
        match self.field(name)? {
            Value::Real(v) => Some(*v as f32),
            _ => None,
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        match self.field(name)? {
            Value::Text(t) => Some(t.to_string()),
            _ => None,
        }
    }

    pub(super) fn date(&self, name: &str) -> Option<String> {
        match self.field(name)? {
            Value::Date(days) => Some(date(*days)),
            _ => None,
        }
    }

    pub(super) fn time(&self, name: &str) -> Option<String> {
        match self.field(name)? {
            Value::Time(ns) => Some(time(*ns)),
            _ => None,
        }
    }

    /// The symbol of an enumeration; a number that it does not know is written as such.
    pub(super) fn symbol(&self, name: &str) -> Option<String> {
        let Value::Symbol(id, v) = self.field(name)? else {
            return None;
        };
        let Type::Enum(_, symbols) = self.schema.get(*id) else {
            return None;
        };
        Some(
            symbols
                .iter()
                .find(|(_, n)| n == v)
                .map_or_else(|| v.to_string(), |(s, _)| s.clone()),
        )
    }

    pub(super) fn three(&self, name: &str) -> [f32; 3] {
        match self.field(name) {
            Some(Value::Array(_, Scalar::F32, bytes)) => {
                let v: Vec<f32> = values(bytes, 4);
                v.first_chunk().copied().unwrap_or_default()
            }
            _ => [0.0; 3],
        }
    }

    /// The first values of a list, and whether there were more than fit.
    pub(super) fn some<T: Copy + Default, const N: usize>(
        &self,
        name: &str,
        of: impl Fn(&Value<'_>) -> Option<T>,
    ) -> Result_<[T; N]> {
        let list = self.list(name);
        if list.len() > N {
            return Err(malformed(
                name,
                format!("{} values", list.len()),
                &format!("at most {N}, as an ISMRMRD header can hold"),
            ));
        }
        let mut out = [T::default(); N];
        for (to, value) in out.iter_mut().zip(list) {
            *to = of(value).unwrap_or_default();
        }
        Ok(out)
    }

    pub(super) fn user_int(&self) -> Result_<[i32; 8]> {
        self.some("userInt", |v| match v {
            Value::Signed(v) => i32::try_from(*v).ok(),
            _ => None,
        })
    }

    pub(super) fn user_float(&self) -> Result_<[f32; 8]> {
        self.some("userFloat", |v| match v {
            Value::Real(v) => Some(*v as f32),
            _ => None,
        })
    }

    pub(super) fn stamp(&self, ticks: &str, ns: &str) -> Result_<u32> {
        match self.unsigned(ns) {
            Some(ns) => Ok(milliseconds(ns)),
            None => self.small(ticks),
        }
    }

    pub(super) fn physiology(&self) -> Result_<[u32; 3]> {
        if self.field("physiologyTimeStampNs").is_some() {
            return self.some("physiologyTimeStampNs", |v| match v {
                Value::Unsigned(v) => Some(milliseconds(*v)),
                _ => None,
            });
        }
        self.some("physiologyTimeStamp", |v| match v {
            Value::Unsigned(v) => u32::try_from(*v).ok(),
            _ => None,
        })
    }

    pub(super) fn sample_time_us(&self) -> f32 {
        match self.unsigned("sampleTimeNs") {
            Some(ns) => (ns as f64 / 1000.0) as f32,
            None => self.real("sampleTimeUs").unwrap_or(0.0),
        }
    }
}

/// Days since 1970 as `YYYY-MM-DD`.
///
/// # Source
/// Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn date(days: i64) -> String {
    // Outside some million years the arithmetic below is of no use to anybody.
    let z = days.clamp(-400_000_000, 400_000_000) + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Nanoseconds since midnight as `HH:MM:SS`, with a fraction when there is one.
fn time(ns: i64) -> String {
    let (seconds, fraction) = (ns.div_euclid(1_000_000_000), ns.rem_euclid(1_000_000_000));
    let (h, m, s) = (
        seconds.div_euclid(3600),
        seconds.rem_euclid(3600) / 60,
        seconds.rem_euclid(60),
    );
    let whole = format!("{h:02}:{m:02}:{s:02}");
    if fraction == 0 {
        return whole;
    }
    format!("{whole}.{}", format!("{fraction:09}").trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(-1), "1969-12-31");
        assert_eq!(date(11_016), "2000-02-29");
        assert_eq!(date(20_780), "2026-11-23");
        assert_eq!(time(0), "00:00:00");
        assert_eq!(time(45_296_500_000_000), "12:34:56.5");
        assert_eq!(milliseconds(2_500_000), 3);
        assert_eq!(milliseconds(1_000_000 * ((1 << 32) + 7)), 7);
    }
}
