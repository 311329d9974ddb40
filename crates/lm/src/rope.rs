//! Rotary position embeddings: the keys that describe them, and the frequencies that follow.

use serde_json::{Map, Value};

use crate::keys::Keys;
use crate::{LmError, ModelConfig};

const THETA: &str = "rope_theta";
const ORIGINAL: &str = "original_max_position_embeddings";
const PARTIAL: &str = "partial_rotary_factor";

/// Llama-3 rotary scaling (`rope_type: llama3`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Llama3Scaling {
    /// Long wavelengths are divided by this.
    pub factor: f64,
    /// Below `original_max_position / low_freq_factor` no scaling.
    pub low_freq_factor: f64,
    /// Above `original_max_position / high_freq_factor` full scaling.
    pub high_freq_factor: f64,
    /// Context length of the original training.
    pub original_max_position: f64,
}

/// The base of the frequencies and their scaling.
type Rope = (f64, Option<Llama3Scaling>);

/// Reads `rope_scaling` (transformers 4) or `rope_parameters` (transformers 5), either of which may hold the theta; a key at
/// the top level counts where the object does not have it. Where there are both objects, transformers takes the first and
/// passes the second over in silence, other programs the second: they have to say the same.
pub(crate) fn read(keys: &Keys<'_>, max_positions: usize) -> Result<Rope, LmError> {
    let empty = Map::new();
    let describe = |name| -> Result<Option<Description<'_>>, LmError> {
        let map = keys.object(name)?.filter(|map| !map.is_empty());
        Ok(map.map(|map| Description { keys, name, map }))
    };
    let (scaling, parameters) = (describe("rope_scaling")?, describe("rope_parameters")?);
    let nothing = Description { keys, name: "rope_parameters", map: &empty };
    let rope = scaling.as_ref().or(parameters.as_ref()).unwrap_or(&nothing).read(max_positions)?;
    match (scaling, parameters) {
        (Some(_), Some(other)) if other.read(max_positions)? != rope => {
            let found = Value::Object(other.map.clone()).to_string();
            Err(keys.refuse(other.name, &found, "what rope_scaling says, or no such key"))
        }
        _ => Ok(rope),
    }
}

/// One of the two objects.
struct Description<'a> {
    keys: &'a Keys<'a>,
    name: &'a str,
    map: &'a Map<String, Value>,
}

impl Description<'_> {
    fn read(&self, max_positions: usize) -> Result<Rope, LmError> {
        if let Some((layers, rope)) = self.map.iter().find(|(_, value)| value.is_object()) {
            return Err(self.refuse(layers, Some(rope), "numbers and names: all layers have the same frequencies"));
        }
        self.only_whole_heads()?;
        let theta = self.theta()?;
        let scaling = match (self.map.get("rope_type").or(self.map.get("type")), self.map.get("factor")) {
            (None, factor) => match factor.filter(|factor| factor.as_f64() != Some(1.0)) {
                Some(_) => return Err(self.refuse("rope_type", None, "the way in which `factor` scales")),
                None => None,
            },
            (Some(kind), _) if kind == "default" => None,
            (Some(kind), _) if kind == "llama3" => Some(self.llama3(max_positions)?),
            (Some(other), _) => return Err(self.refuse("rope_type", Some(other), "default or llama3")),
        };
        Ok((theta, scaling))
    }

    fn theta(&self) -> Result<f64, LmError> {
        let said = |value: &&Value| !value.is_null();
        let (inside, outside) = (self.map.get(THETA), self.keys.value.get(THETA));
        let (name, value) = match (inside.filter(said), outside.filter(said)) {
            (Some(inside), _) => (self.key(THETA), inside),
            (None, Some(outside)) => (THETA.into(), outside),
            // 10000 is for those who say nothing, not for those who lost their number.
            (None, None) if inside.or(outside).is_some() => {
                return Err(self.keys.refuse(THETA, "null", "a number above 0"));
            }
            (None, None) => return Ok(10_000.0),
        };
        Ok(self.keys.positive(&name, Some(value))?.unwrap_or(10_000.0))
    }

    fn llama3(&self, max_positions: usize) -> Result<Llama3Scaling, LmError> {
        let number = |key: &str| {
            let found = self.keys.positive(&self.key(key), self.map.get(key))?;
            found.ok_or_else(|| self.refuse(key, None, "a number"))
        };
        let original = match self.keys.optional_count(ORIGINAL)? {
            Some(length) => Some(length),
            None => self.keys.integer(&self.key(ORIGINAL), self.map.get(ORIGINAL))?,
        };
        let scaling = Llama3Scaling {
            factor: number("factor")?,
            low_freq_factor: number("low_freq_factor")?,
            high_freq_factor: number("high_freq_factor")?,
            original_max_position: original.unwrap_or(max_positions) as f64,
        };
        if scaling.high_freq_factor <= scaling.low_freq_factor {
            let expected = format!("a number above low_freq_factor ({})", scaling.low_freq_factor);
            let key = "high_freq_factor";
            return Err(self.refuse(key, self.map.get(key), &expected));
        }
        Ok(scaling)
    }

    fn only_whole_heads(&self) -> Result<(), LmError> {
        let share = [self.map.get(PARTIAL), self.keys.value.get(PARTIAL)];
        match share.into_iter().flatten().find(|share| !share.is_null() && share.as_f64() != Some(1.0)) {
            Some(share) => Err(self.keys.refuse(PARTIAL, &share.to_string(), "1: the whole head is rotated")),
            None => Ok(()),
        }
    }

    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.name)
    }

    fn refuse(&self, key: &str, value: Option<&Value>, expected: &str) -> LmError {
        self.keys.refuse(&self.key(key), &value.map_or("missing".into(), Value::to_string), expected)
    }
}

impl ModelConfig {
    /// Inverse rotary frequencies, `[head_dim / 2]`, Llama-3 scaling included.
    pub fn inverse_frequencies(&self) -> Vec<f64> {
        let base = (0..self.head_dim / 2).map(|i| self.rope_theta.powf(-2.0 * i as f64 / self.head_dim as f64));
        let Some(s) = self.rope_scaling else { return base.collect() };
        base.map(|frequency| {
            let wavelength = 2.0 * std::f64::consts::PI / frequency;
            let low = s.original_max_position / s.low_freq_factor;
            let high = s.original_max_position / s.high_freq_factor;
            if wavelength < high {
                frequency
            } else if wavelength > low {
                frequency / s.factor
            } else {
                let smooth = (s.original_max_position / wavelength - s.low_freq_factor)
                    / (s.high_freq_factor - s.low_freq_factor);
                (1.0 - smooth) * frequency / s.factor + smooth * frequency
            }
        })
        .collect()
    }

    /// Cosines and sines of these positions, each `[positions, head_dim / 2]` row-major.
    pub fn rotary_tables(&self, positions: impl Iterator<Item = usize>) -> (Vec<f32>, Vec<f32>) {
        let frequencies = self.inverse_frequencies();
        // Angles in f32 products, as the reference implementation computes them.
        let angles = positions.flat_map(|p| frequencies.iter().map(move |f| f64::from(p as f32 * *f as f32)));
        angles.map(|angle| (angle.cos() as f32, angle.sin() as f32)).unzip()
    }
}
