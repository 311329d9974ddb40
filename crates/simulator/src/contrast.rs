//! Twins: documents of the other quality for the same query.
//!
//! A policy's queries give their quality away: one that names what is asked for finds the answer nearly always, the
//! first of a chain nearly never. A simulator tuned on such pairs alone learns to look at the query and to ignore the keyword. So
//! each search gets a twin: the same question and query, with documents of the other quality, all of them real.

use zerosearch_search::{Query, SearchEngine, SearchError};

use crate::{Interaction, LabelledInteraction, mentions};

/// How many times `top_k` documents are looked through for those of the other quality.
const DEPTH: usize = 4;

/// For each interaction, where the engine has documents for it, one of the other quality by the exact rule:
///
/// - without an answer in sight, the best document that mentions a golden answer, searched with question and answer together, and then
///   the same documents. With `evidence` above 1 so many such documents, 0 for all but one of `top_k`, and the answer alone is searched
///   for, too;
/// - with an answer in sight, the query's next best documents that do not mention it.
///
/// The twins are to be judged as the originals are.
///
/// # Errors
/// When a search fails.
pub fn contrast(
    interactions: &[Interaction],
    engine: &dyn SearchEngine,
    top_k: usize,
    evidence: usize,
) -> Result<Vec<Interaction>, SearchError> {
    let wanted = if evidence == 0 { top_k.saturating_sub(1).max(1) } else { evidence };
    let mut twins = Vec::new();
    for original in interactions {
        let golden = &original.golden_answers;
        let search = |text: &str| -> Result<Vec<String>, SearchError> {
            let found = engine.search(&Query { text, top_k: top_k * DEPTH, context: None })?;
            Ok(found.into_iter().map(|document| document.contents).collect())
        };
        let documents: Vec<String> = if original.documents.iter().any(|document| mentions(document, golden)) {
            let found = search(&original.query)?;
            found.into_iter().filter(|document| !mentions(document, golden)).take(top_k).collect()
        } else {
            let answer = golden.first().map_or("", String::as_str);
            let mut found: Vec<String> = Vec::new();
            // With one such document, a single slip of the simulator's leaves the answer out. The end of a long chain shares no
            // word with the question.
            for text in [format!("{} {answer}", original.question), answer.to_string()] {
                for document in search(&text)? {
                    if found.len() < wanted && mentions(&document, golden) && !found.contains(&document) {
                        found.push(document);
                    }
                }
                if found.len() == wanted || evidence == 1 {
                    break;
                }
            }
            if found.is_empty() {
                continue;
            }
            found.into_iter().chain(original.documents.iter().cloned()).take(top_k).collect()
        };
        if !documents.is_empty() {
            twins.push(Interaction { documents, ..original.clone() });
        }
    }
    Ok(twins)
}

/// The interaction with the documents that mention a golden answer before the others, in their order. Where the answer stands is then
/// not left to chance, and a small simulator learns to write it rather than to wait for it.
pub fn evidence_first(mut row: LabelledInteraction) -> LabelledInteraction {
    let Interaction { documents, golden_answers, .. } = &mut row.interaction;
    documents.sort_by_cached_key(|document| !mentions(document, golden_answers));
    row
}

#[cfg(test)]
mod tests {
    use zerosearch_search::{Bm25Index, Document, Quality};

    use super::*;
    use crate::{Judge, RuleJudge};

    fn engine() -> Bm25Index {
        let texts = [
            "The capital of Chad is Moundou.",
            "The capital of Chad has a river.",
            "Chad has the code td.",
            "Moundou has many fish.",
            "The code td belongs to Chad.",
        ];
        let document = |text: &&str| Document { contents: (*text).into(), ..Document::default() };
        Bm25Index::new(texts.iter().map(document)).unwrap()
    }

    fn searched(query: &str) -> Interaction {
        let found = engine().search(&Query { text: query, top_k: 1, context: None }).unwrap();
        Interaction {
            question: "What is the capital of the country with the code td?".into(),
            golden_answers: vec!["Moundou".into()],
            query: query.into(),
            documents: found.into_iter().map(|document| document.contents).collect(),
        }
    }

    #[test]
    fn every_search_gets_a_twin_of_the_other_quality() {
        let originals = [searched("capital Chad is"), searched("code td")];
        let twins = contrast(&originals, &engine(), 1, 0).unwrap();
        assert_eq!(RuleJudge.judge(&originals).unwrap(), [Quality::Useful, Quality::Noisy]);
        assert_eq!(RuleJudge.judge(&twins).unwrap(), [Quality::Noisy, Quality::Useful]);
        for (twin, original) in twins.iter().zip(&originals) {
            assert_eq!((&twin.question, &twin.query), (&original.question, &original.query));
        }
    }

    #[test]
    fn all_documents_but_one_are_evidence_where_there_is_so_much() {
        let twins = contrast(&[searched("code td")], &engine(), 3, 0).unwrap();
        let evident: Vec<bool> =
            twins[0].documents.iter().map(|document| mentions(document, &["Moundou".to_string()])).collect();
        assert_eq!(evident, [true, true, false]);
    }

    #[test]
    fn evidence_stands_first_and_the_rest_as_it_stood() {
        let documents = ["a river", "It is Moundou.", "a fish", "Moundou, then."].map(String::from).to_vec();
        let interaction = Interaction { documents, ..searched("capital Chad is") };
        let row = evidence_first(LabelledInteraction { interaction, quality: Quality::Useful });
        assert_eq!(row.interaction.documents, ["It is Moundou.", "Moundou, then.", "a river", "a fish"]);
    }

    #[test]
    fn where_the_corpus_has_no_such_document_there_is_no_twin() {
        let mut unanswerable = searched("code td");
        unanswerable.golden_answers = vec!["Bongor".into()];
        assert_eq!(contrast(&[unanswerable], &engine(), 1, 0).unwrap(), []);
    }
}
