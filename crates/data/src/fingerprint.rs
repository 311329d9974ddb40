//! Short names for contents: of a question set, or of anything else that a run must find again as it was.

use crate::Question;

/// Names the content of a question set, so that a run is resumed on the questions it began with.
///
/// Number of questions and FNV-1a (64 bits) over ids, texts, golden answers, data sources and hops,
/// in order. The same on every machine and in every version; [`Question::extra`] does not count.
pub fn fingerprint(questions: &[Question]) -> String {
    let mut hash = Fingerprint::default();
    for question in questions {
        hash.text(&question.id);
        hash.text(&question.question);
        hash.number(question.golden_answers.len());
        question.golden_answers.iter().for_each(|answer| hash.text(answer));
        hash.number(question.data_source.iter().len());
        question.data_source.iter().for_each(|source| hash.text(source));
        hash.number(question.hops.iter().len());
        question.hops.iter().for_each(|hops| hash.number(*hops));
    }
    format!("{}-{hash}", questions.len())
}

/// FNV-1a (64 bits) over whatever it is given, in order; shown as 16 hexadecimal digits. It tells contents apart
/// that differ by accident, not by design.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(u64);

impl Default for Fingerprint {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fingerprint {
    /// Adds bytes, without their number.
    pub fn bytes(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.add(u64::from(*byte)));
    }

    /// Adds a number.
    pub fn number(&mut self, number: usize) {
        self.bytes(&(number as u64).to_le_bytes());
    }

    /// Adds a text. The length goes first, so that no two lists of texts run together into the same bytes.
    pub fn text(&mut self, text: &str) {
        self.number(text.len());
        self.bytes(text.as_bytes());
    }

    /// Adds numbers by their bits, four bytes at a time where the other methods take one: for weights.
    pub fn floats(&mut self, values: &[f32]) {
        self.number(values.len());
        values.iter().for_each(|value| self.add(u64::from(value.to_bits())));
    }

    fn add(&mut self, unit: u64) {
        self.0 = (self.0 ^ unit).wrapping_mul(0x0000_0100_0000_01b3);
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_1a() {
        // Test vectors of the FNV reference (draft-eastlake-fnv).
        for (text, expected) in
            [("", 0xcbf2_9ce4_8422_2325), ("a", 0xaf63_dc4c_8601_ec8c), ("foobar", 0x8594_4171_f739_67e8)]
        {
            let mut hash = Fingerprint::default();
            hash.bytes(text.as_bytes());
            assert_eq!(hash.0, expected, "{text:?}");
        }
    }

    #[test]
    fn one_bit_of_one_weight_is_another_fingerprint() {
        let of = |values: &[f32]| {
            let mut hash = Fingerprint::default();
            hash.floats(values);
            hash.to_string()
        };
        assert_ne!(of(&[1.0, 2.0, 3.0]), of(&[1.0, 2.0_f32.next_up(), 3.0]));
        assert_ne!(of(&[0.0]), of(&[-0.0]));
        assert_ne!(of(&[0.0]), of(&[0.0, 0.0]));
        assert_eq!(of(&[]).len(), 16);
    }
}
