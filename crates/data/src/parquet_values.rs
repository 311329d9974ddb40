//! Values of a Parquet file in JSON.

use std::sync::Arc;

use chrono::{DateTime, NaiveTime, TimeDelta, Utc};
use parquet::basic::{ConvertedType, LogicalType, Repetition, TimeUnit};
use parquet::record::{Field, Row};
use parquet::schema::types::Type;
use serde_json::{Map, Value, json};

/// A row, or a group within one, whose columns are of these types.
pub(crate) fn object(row: Row, kinds: &[Arc<Type>]) -> Map<String, Value> {
    let kinds = kinds.iter().map(|kind| Some(&**kind)).chain(std::iter::repeat(None));
    row.into_columns().into_iter().zip(kinds).map(|((key, field), kind)| (key, value(field, kind))).collect()
}

/// The reader knows the types of old files only; `kind` is that of the schema, if the place has one.
fn value(field: Field, kind: Option<&Type>) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(value) => value.into(),
        Field::Byte(value) => value.into(),
        Field::Short(value) => value.into(),
        Field::Int(value) => time(i64::from(value), kind).unwrap_or_else(|| value.into()),
        Field::Long(value) => time(value, kind).unwrap_or_else(|| value.into()),
        Field::UByte(value) => value.into(),
        Field::UShort(value) => value.into(),
        Field::UInt(value) => value.into(),
        Field::ULong(value) => value.into(),
        Field::Float16(value) => short(&value),
        Field::Float(value) => short(&value),
        Field::Double(value) => value.into(),
        Field::Decimal(_) => decimal(&field.to_string()).into(),
        Field::Str(value) => value.into(),
        Field::Bytes(value) => bytes(value.data(), kind),
        Field::Date(days) => moment(i64::from(days), DAY, false).unwrap_or_else(|| days.into()),
        Field::TimeMillis(value) => time_of_day(i64::from(value), MILLI).unwrap_or_else(|| value.into()),
        Field::TimeMicros(value) => time_of_day(value, MICRO).unwrap_or_else(|| value.into()),
        Field::TimestampMillis(value) => moment(value, MILLI, is_utc(kind)).unwrap_or_else(|| value.into()),
        Field::TimestampMicros(value) => moment(value, MICRO, is_utc(kind)).unwrap_or_else(|| value.into()),
        Field::Group(row) => object(row, children(kind)).into(),
        Field::ListInternal(list) => {
            let element = kind.and_then(element);
            list.elements().iter().map(|field| value(field.clone(), element)).collect()
        }
        Field::MapInternal(map) => {
            let pair = children(kind).first().map_or(&[][..], |pair| children(Some(pair)));
            let entry = |(key, field): &(Field, Field)| {
                let key = match value(key.clone(), pair.first().map(|kind| &**kind)) {
                    Value::String(text) => text,
                    other => other.to_string(),
                };
                (key, value(field.clone(), pair.get(1).map(|kind| &**kind)))
            };
            Value::Object(map.entries().iter().map(entry).collect())
        }
    }
}

fn children(kind: Option<&Type>) -> &[Arc<Type>] {
    match kind {
        Some(Type::GroupType { fields, .. }) => fields,
        _ => &[],
    }
}

/// The type of a list's elements, also where an old writer left out the group around them.
/// Source: the Parquet format's `LogicalTypes.md`, "Backward-compatibility rules".
fn element(list: &Type) -> Option<&Type> {
    let [repeated] = children(Some(list)) else { return Some(list) };
    let info = list.get_basic_info();
    let annotated =
        matches!(info.converted_type(), ConvertedType::LIST | ConvertedType::MAP | ConvertedType::MAP_KEY_VALUE);
    if !annotated && info.has_repetition() && info.repetition() == Repetition::REPEATED {
        return Some(list);
    }
    match children(Some(repeated)) {
        [element] if repeated.name() != "array" && !repeated.name().ends_with("_tuple") => Some(element),
        _ => Some(repeated),
    }
}

/// The decimal that was meant: 0.1 and not 0.10000000149011612. What is not finite is null.
fn short(value: &impl ToString) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

/// Without the zeros that only fill up the column's scale.
fn decimal(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

/// Older writers leave out the mark that says that a column is text.
fn bytes(bytes: &[u8], kind: Option<&Type>) -> Value {
    if let (Some(LogicalType::Uuid), 16) = (logical(kind), bytes.len()) {
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        return [&hex[..4], &hex[4..6], &hex[6..8], &hex[8..10], &hex[10..]].map(|part| part.concat()).join("-").into();
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        // No list, which could be taken for one of answers.
        Err(_) => json!({ "bytes": bytes }),
    }
}

fn logical(kind: Option<&Type>) -> Option<&LogicalType> {
    kind?.get_basic_info().logical_type_ref()
}

const MICRO: i64 = 1_000;
const MILLI: i64 = 1_000_000;
const DAY: i64 = 86_400_000_000_000;

/// A number that the schema calls a time.
fn time(value: i64, kind: Option<&Type>) -> Option<Value> {
    let nanoseconds = |unit: &TimeUnit| match unit {
        TimeUnit::MILLIS => MILLI,
        TimeUnit::MICROS => MICRO,
        TimeUnit::NANOS => 1,
    };
    match logical(kind)? {
        LogicalType::Timestamp(time) => moment(value, nanoseconds(&time.unit), is_utc(kind)),
        LogicalType::Time(time) => time_of_day(value, nanoseconds(&time.unit)),
        _ => None,
    }
}

fn is_utc(kind: Option<&Type>) -> bool {
    matches!(logical(kind), Some(LogicalType::Timestamp(time)) if time.is_adjusted_to_u_t_c)
}

/// `2008-08-08`, `2008-08-08 20:08:00` or, in UTC, `2008-08-08 12:08:00+00:00`: as Python prints it,
/// and midnight as a day, since tables keep their dates so. `None` for what is in no calendar.
fn moment(value: i64, nanoseconds: i64, utc: bool) -> Option<Value> {
    let nanoseconds = i128::from(value) * i128::from(nanoseconds);
    let (seconds, rest) = (nanoseconds.div_euclid(1_000_000_000), nanoseconds.rem_euclid(1_000_000_000));
    let moment = DateTime::<Utc>::from_timestamp(seconds.try_into().ok()?, rest.try_into().ok()?)?.naive_utc();
    let form = match (moment.time() == NaiveTime::MIN, utc) {
        (true, _) => "%Y-%m-%d",
        (false, false) => "%Y-%m-%d %H:%M:%S%.f",
        (false, true) => "%Y-%m-%d %H:%M:%S%.f+00:00",
    };
    Some(moment.format(form).to_string().into())
}

fn time_of_day(value: i64, nanoseconds: i64) -> Option<Value> {
    let nanoseconds = value.checked_mul(nanoseconds).filter(|time| (0..DAY).contains(time))?;
    let (time, _) = NaiveTime::MIN.overflowing_add_signed(TimeDelta::nanoseconds(nanoseconds));
    Some(time.format("%H:%M:%S%.f").to_string().into())
}
