//! Rows of a Parquet file as JSON objects, read without Arrow.

use std::fs::File;
use std::path::Path;

use parquet::basic::ConvertedType;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::Type;
use serde_json::{Map, Value};

use crate::parquet_values::object;
use crate::{DataError, Position};

pub(crate) fn parquet_rows(
    path: &Path,
    take: &mut impl FnMut(Map<String, Value>, Position) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let damaged = |source| DataError::Parquet { path: path.into(), source };
    let file = File::open(path).map_err(|source| DataError::read(path, source))?;
    let reader = SerializedFileReader::new(file).map_err(damaged)?;
    let schema = readable(reader.metadata().file_metadata().schema()).map_err(damaged)?;
    for (row, number) in reader.get_row_iter(Some(schema.clone())).map_err(damaged)?.zip(1..) {
        take(object(row.map_err(damaged)?, schema.get_fields()), Position::Row(number))?;
    }
    Ok(())
}

/// The schema without the columns that the reader has no value for and would panic at: intervals.
fn readable(schema: &Type) -> Result<Type, ParquetError> {
    let fields = schema.get_fields().iter().filter(|field| !has_interval(field)).cloned().collect();
    Type::group_type_builder(schema.name()).with_fields(fields).build()
}

fn has_interval(kind: &Type) -> bool {
    match kind {
        Type::PrimitiveType { basic_info, .. } => basic_info.converted_type() == ConvertedType::INTERVAL,
        Type::GroupType { fields, .. } => fields.iter().any(|field| has_interval(field)),
    }
}
