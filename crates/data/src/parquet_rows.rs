//! Rows of a Parquet file as JSON objects, read without Arrow.

use std::fs::File;
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use serde_json::{Map, Value};

use crate::{DataError, Position};

pub(crate) fn parquet_rows(
    path: &Path,
    take: &mut impl FnMut(Map<String, Value>, Position) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let damaged = |source| DataError::Parquet { path: path.into(), source };
    let file = File::open(path).map_err(|source| DataError::read(path, source))?;
    let reader = SerializedFileReader::new(file).map_err(damaged)?;
    for (row, number) in reader.get_row_iter(None).map_err(damaged)?.zip(1..) {
        take(object(row.map_err(damaged)?), Position::Row(number))?;
    }
    Ok(())
}

fn object(row: Row) -> Map<String, Value> {
    row.into_columns().into_iter().map(|(key, field)| (key, value(field))).collect()
}

fn value(field: Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(value) => value.into(),
        Field::Byte(value) => value.into(),
        Field::Short(value) => value.into(),
        Field::Int(value) => value.into(),
        Field::Long(value) => value.into(),
        Field::UByte(value) => value.into(),
        Field::UShort(value) => value.into(),
        Field::UInt(value) => value.into(),
        Field::ULong(value) => value.into(),
        Field::Float16(value) => f32::from(value).into(),
        Field::Float(value) => value.into(),
        Field::Double(value) => value.into(),
        Field::Str(value) => value.into(),
        // Older writers leave out the mark that says that a column is text.
        Field::Bytes(value) => match std::str::from_utf8(value.data()) {
            Ok(text) => text.into(),
            Err(_) => value.data().to_vec().into(),
        },
        Field::Group(row) => object(row).into(),
        Field::ListInternal(list) => list.elements().iter().cloned().map(value).collect(),
        Field::MapInternal(map) => {
            let entry = |(key, field): &(Field, Field)| {
                let key = match value(key.clone()) {
                    Value::String(text) => text,
                    other => other.to_string(),
                };
                (key, value(field.clone()))
            };
            Value::Object(map.entries().iter().map(entry).collect())
        }
        other @ (Field::Decimal(_)
        | Field::Date(_)
        | Field::TimeMillis(_)
        | Field::TimeMicros(_)
        | Field::TimestampMillis(_)
        | Field::TimestampMicros(_)) => other.to_string().into(),
    }
}
