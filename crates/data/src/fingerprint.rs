//! A short name for the content of a question set.

use crate::Question;

/// Names the content of a question set, so that a run is resumed on the questions it began with.
///
/// Number of questions and FNV-1a (64 bits) over ids, texts, golden answers, data sources and hops,
/// in order. The same on every machine and in every version; [`Question::extra`] does not count.
pub fn fingerprint(questions: &[Question]) -> String {
    let mut hash = Fnv1a(0xcbf2_9ce4_8422_2325);
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
    format!("{}-{:016x}", questions.len(), hash.0)
}

struct Fnv1a(u64);

impl Fnv1a {
    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn number(&mut self, number: usize) {
        self.bytes(&(number as u64).to_le_bytes());
    }

    /// The length goes first, so that no two lists of texts run together into the same bytes.
    fn text(&mut self, text: &str) {
        self.number(text.len());
        self.bytes(text.as_bytes());
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
            let mut hash = Fnv1a(0xcbf2_9ce4_8422_2325);
            hash.bytes(text.as_bytes());
            assert_eq!(hash.0, expected, "{text:?}");
        }
    }
}
