//! Tensors in safetensors files: how numbers are stored, reading them, and writing, so that no reader sees half a file.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorInfo};
use zerosearch_files::{FileError, StagedFile};

use crate::{HostTensor, LmError};

/// How numbers are stored in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredDtype {
    /// 4 bytes, exact.
    F32,
    /// 2 bytes, IEEE half precision, rounded to nearest even. Holds values up to 65504.
    F16,
    /// 2 bytes, the upper half of an f32, rounded to nearest even.
    Bf16,
}

/// How the tensors of a folder were stored, by name.
pub(crate) type Dtypes = BTreeMap<String, StoredDtype>;

impl StoredDtype {
    /// As `config.json` spells it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }

    /// Bytes of one number.
    pub(crate) fn size(self) -> usize {
        if self == Self::F32 { 4 } else { 2 }
    }

    fn of(kind: Dtype) -> Option<Self> {
        match kind {
            Dtype::F32 => Some(Self::F32),
            Dtype::F16 => Some(Self::F16),
            Dtype::BF16 => Some(Self::Bf16),
            _ => None,
        }
    }

    fn kind(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
            Self::Bf16 => Dtype::BF16,
        }
    }

    /// The least magnitude that rounds to infinity.
    fn limit(self) -> f32 {
        match self {
            Self::F32 => f32::INFINITY,
            Self::F16 => 65520.0,
            Self::Bf16 => f32::from_bits(0x7f7f_8000),
        }
    }

    fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::F16 => values.iter().flat_map(|value| to_f16(*value).to_le_bytes()).collect(),
            Self::Bf16 => values.iter().flat_map(|value| to_bf16(*value).to_le_bytes()).collect(),
        }
    }

    fn decode(self, data: &[u8]) -> Vec<f32> {
        let halves = || data.as_chunks::<2>().0.iter().map(|bytes| u16::from_le_bytes(*bytes));
        match self {
            Self::F32 => data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            Self::F16 => halves().map(from_f16).collect(),
            Self::Bf16 => halves().map(|bits| f32::from_bits(u32::from(bits) << 16)).collect(),
        }
    }
}

/// Reads every tensor of one safetensors file as f32, and says how each was stored.
///
/// # Errors
/// When it is missing, cut short, or holds another kind of number.
pub(crate) fn read_file(path: &Path) -> Result<(BTreeMap<String, HostTensor>, Dtypes), LmError> {
    let bytes = std::fs::read(path).map_err(|error| LmError::file(path, error))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| {
        LmError::file(path, format!("not a whole safetensors file ({error}); was the download or the write cut short?"))
    })?;
    let (mut tensors, mut dtypes) = (BTreeMap::new(), Dtypes::new());
    for (name, view) in file.tensors() {
        let Some(dtype) = StoredDtype::of(view.dtype()) else {
            let message = format!("has dtype {:?}, expected F32, BF16 or F16", view.dtype());
            return Err(LmError::Tensor { path: path.into(), name, message });
        };
        let tensor = HostTensor { shape: view.shape().to_vec(), values: dtype.decode(view.data()) };
        dtypes.insert(name.clone(), dtype);
        tensors.insert(name, tensor);
    }
    Ok((tensors, dtypes))
}

/// Writes named tensors as one safetensors file.
///
/// # Errors
/// When it cannot be written, or a value does not fit the format.
pub(crate) fn write_tensors<'a>(
    path: &Path,
    tensors: impl Iterator<Item = (&'a str, &'a HostTensor)>,
    dtype: StoredDtype,
) -> Result<(), LmError> {
    stage_tensors(path, tensors.map(|(name, tensor)| Stored::of(name, tensor, dtype)).collect())?.publish()?;
    Ok(())
}

/// A tensor on its way into a file, whose values are asked for when they are written.
pub(crate) struct Stored<'a> {
    pub(crate) name: String,
    pub(crate) dtype: StoredDtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Box<dyn Fn() -> Cow<'a, [f32]> + 'a>,
}

impl<'a> Stored<'a> {
    pub(crate) fn of(name: &str, tensor: &'a HostTensor, dtype: StoredDtype) -> Self {
        let values = Box::new(|| Cow::Borrowed(&tensor.values[..]));
        Self { name: name.into(), dtype, shape: tensor.shape.clone(), values }
    }

    /// The bytes that stand in the file; `path` is for messages.
    fn encode(&self, path: &Path) -> Result<Vec<u8>, LmError> {
        let values = (self.values)();
        let wrong = |message: String| LmError::Tensor { path: path.into(), name: self.name.clone(), message };
        if let Some(value) = values.iter().find(|value| value.is_finite() && value.abs() >= self.dtype.limit()) {
            return Err(wrong(format!("holds {value}, too large for {:?}: store it as F32", self.dtype)));
        }
        if values.len() != self.shape.iter().product::<usize>() {
            return Err(wrong(format!("has {} values for the shape {:?}", values.len(), self.shape)));
        }
        Ok(self.dtype.encode(&values))
    }
}

/// Writes a safetensors file under a temporary name, one tensor after another: only one is encoded at a time.
pub(crate) fn stage_tensors(path: &Path, mut tensors: Vec<Stored<'_>>) -> Result<StagedFile, LmError> {
    // The order of the format's own library: by alignment, then by name.
    tensors.sort_by(|a, b| b.dtype.kind().cmp(&a.dtype.kind()).then_with(|| a.name.cmp(&b.name)));
    let mut end = 0;
    let info = |tensor: &Stored<'_>| {
        let start = end;
        end += tensor.shape.iter().product::<usize>() * tensor.dtype.size();
        let info = TensorInfo { dtype: tensor.dtype.kind(), shape: tensor.shape.clone(), data_offsets: (start, end) };
        (tensor.name.clone(), info)
    };
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let metadata = Metadata::new(Some(metadata), tensors.iter().map(info).collect());
    let metadata = metadata.map_err(|error| LmError::file(path, error))?;
    let mut header = serde_json::to_vec(&metadata).map_err(|error| LmError::file(path, error))?;
    header.resize(header.len().next_multiple_of(size_of::<u64>()), b' ');
    let mut file = StagedFile::create(path)?;
    let mut write = |bytes: &[u8]| file.write_all(bytes).map_err(FileError::write(path));
    write(&(header.len() as u64).to_le_bytes())?;
    write(&header)?;
    for tensor in &tensors {
        write(&tensor.encode(path)?)?;
    }
    file.sync()?;
    Ok(file)
}

fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        // Rounding could carry into the exponent and make it a number.
        return (bits >> 16) as u16 | 0x40;
    }
    let rounding = 0x7fff + ((bits >> 16) & 1);
    (bits.wrapping_add(rounding) >> 16) as u16
}

fn to_f16(value: f32) -> u16 {
    let (bits, magnitude) = (value.to_bits() & 0x7fff_ffff, value.abs());
    let rounded = if value.is_nan() {
        0x7e00
    } else if magnitude >= StoredDtype::F16.limit() {
        0x7c00
    } else if magnitude < 2f32.powi(-14) {
        // Subnormal: a multiple of 2^-24, and scaling by a power of two is exact.
        (magnitude * 2f32.powi(24)).round_ties_even() as u16
    } else {
        let rebiased = bits - (112 << 23);
        ((rebiased + 0xfff + ((rebiased >> 13) & 1)) >> 13) as u16
    };
    rounded | if value.is_sign_negative() { 0x8000 } else { 0 }
}

fn from_f16(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let exponent = i32::from((bits >> 10) & 0x1f);
    let fraction = f32::from(bits & 0x3ff);
    sign * match exponent {
        0 => fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1.0 + fraction / 1024.0) * 2f32.powi(exponent - 15),
    }
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::TensorView;

    use super::*;

    #[test]
    fn every_half_precision_number_survives() {
        for bits in 0..=u16::MAX {
            let value = from_f16(bits);
            assert!(value.is_nan() || to_f16(value) == bits, "{bits:#06x}: {value} gives {:#06x}", to_f16(value));
        }
    }

    #[test]
    fn rounding_goes_to_the_nearest_and_between_two_to_the_even_one() {
        let f16 = |value: f32| from_f16(to_f16(value));
        let step = 2f32.powi(-10);
        assert_eq!([f16(1.0 + 0.5 * step), f16(1.0 + 1.5 * step)], [1.0, 1.0 + 2.0 * step]);
        assert_eq!([f16(1.0 + 0.501 * step), f16(-1.0 - 0.499 * step)], [1.0 + step, -1.0]);
        let least = 2f32.powi(-24);
        assert_eq!([f16(0.5 * least), f16(1.5 * least), f16(0.51 * least)], [0.0, 2.0 * least, least]);
        assert_eq!([f16(65519.0), f16(65520.0)], [65504.0, f32::INFINITY]);

        let bf16 = |value: f32| f32::from_bits(u32::from(to_bf16(value)) << 16);
        let step = 2f32.powi(-7);
        assert_eq!([bf16(1.0 + 0.5 * step), bf16(1.0 + 1.5 * step)], [1.0, 1.0 + 2.0 * step]);
    }

    #[test]
    fn no_format_makes_a_number_of_nan() {
        for bits in [0x7fff_ffff, 0xffff_ffff, 0x7f80_0001u32] {
            let value = f32::from_bits(bits);
            for dtype in [StoredDtype::F32, StoredDtype::F16, StoredDtype::Bf16] {
                assert!(dtype.decode(&dtype.encode(&[value]))[0].is_nan(), "{bits:#x} in {dtype:?}");
            }
        }
    }

    #[test]
    fn a_value_that_does_not_fit_is_refused_with_its_tensor() {
        let tensor = HostTensor { shape: vec![2], values: vec![1.0, -70000.0] };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.safetensors");
        let write = |dtype| write_tensors(&path, std::iter::once(("w", &tensor)), dtype);
        let message = write(StoredDtype::F16).unwrap_err().to_string();
        assert!(message.contains("m.safetensors: tensor `w` holds -70000") && message.contains("F32"), "{message}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
        assert!(write(StoredDtype::Bf16).is_ok() && write(StoredDtype::F32).is_ok());
    }

    #[test]
    fn a_file_has_the_bytes_that_the_formats_own_library_writes() {
        let tensors: Vec<(String, HostTensor)> = ["w", "b", "a.c"]
            .iter()
            .zip(1..)
            .map(|(name, rows)| {
                let values = (0..rows * 3).map(|value| value as f32 / 8.0).collect();
                (name.to_string(), HostTensor { shape: vec![rows, 3], values })
            })
            .collect();
        let dtype_of = |name: &str| if name == "b" { StoredDtype::Bf16 } else { StoredDtype::F32 };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.safetensors");
        let stored = tensors.iter().map(|(name, tensor)| Stored::of(name, tensor, dtype_of(name)));
        stage_tensors(&path, stored.collect()).unwrap().publish().unwrap();
        let encoded = tensors.iter().map(|(name, tensor)| (name, tensor, dtype_of(name).encode(&tensor.values)));
        let encoded: Vec<_> = encoded.collect();
        let views = encoded.iter().map(|(name, tensor, bytes)| {
            (name.as_str(), TensorView::new(dtype_of(name).kind(), tensor.shape.clone(), bytes).unwrap())
        });
        let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
        assert_eq!(std::fs::read(&path).unwrap(), safetensors::serialize(views, Some(metadata)).unwrap());
    }
}
