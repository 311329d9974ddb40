//! A real engine in memory: BM25 over a corpus of passages.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tantivy::directory::RamDirectory;
use tantivy::fieldnorm::FieldNormReader;
use tantivy::postings::Postings;
use tantivy::query::Bm25Weight;
use tantivy::schema::{Field, IndexRecordOption, Schema, TextFieldIndexing, TextOptions};
use tantivy::store::Compressor;
use tantivy::tokenizer::{TextAnalyzer, TokenizerManager};
use tantivy::{DocSet, Index, IndexSettings, InvertedIndexReader, SegmentReader, TantivyDocument, Term};
use zerosearch_data::read_corpus;

use crate::words::{Words, words};
use crate::{Document, Query, SearchEngine, SearchError};

/// The name under which tantivy knows our tokenizer.
const TOKENIZER: &str = "words";

/// Bytes that tantivy plans its tables for while it builds; they grow when the corpus is larger.
const BUILD_MEMORY: usize = 50_000_000;

/// BM25 (k1 = 1.2, b = 0.75) over documents held in memory.
///
/// A token is a maximal run of letters and digits, lower-cased; nothing is stemmed and nothing is
/// too short, too long or too common, so an Internet code such as `.td` is found by its token `td`.
/// In scripts without blanks between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese, …), and in
/// Korean, whose particles stick to the words, every character is a token and so is every pair of
/// neighbours: `東京都` is found by `東京`, `京都` and `都`. Wide and narrow forms (`ＮＨＫ`, `ｶﾅ`) and
/// composed and decomposed letters are the same. There is no dictionary: simplified and traditional
/// characters, hiragana and katakana are different.
/// The title is searched together with the contents. A document matches when it has at least one
/// token of the query; a token that the query repeats counts as often as it stands there. A query is
/// data: there is no query language, `AND ) "` is two punctuation marks and a word.
///
/// Answers depend on the documents, their order and the words of the query alone: not on the order
/// of those words, nor on `top_k` (a shorter answer is the beginning of a longer one). Equal scores
/// are ordered by the position in the corpus.
///
/// Source: Robertson and Zaragoza, *The Probabilistic Relevance Framework: BM25 and Beyond*, 2009,
/// with Lucene's non-negative idf `ln(1 + (N − n + ½)/(n + ½))` and the length of a document rounded
/// down to one of tantivy's 256 steps (exact up to 40 tokens).
///
/// ```
/// use zerosearch_search::{Bm25Index, Document, Query, SearchEngine};
///
/// let passage = |title: &str, contents: &str| Document { title: Some(title.into()), contents: contents.into(), ..Default::default() };
/// let index = Bm25Index::new([
///     passage("Chad", "The capital is N'Djamena, the Internet code .td."),
///     passage("Niger", "The capital is Niamey, the Internet code .ne."),
/// ])?;
/// let found = index.search(&Query { text: "Internet code .ne", top_k: 1, context: None })?;
/// assert_eq!(found[0].title.as_deref(), Some("Niger"));
/// # Ok::<(), zerosearch_search::SearchError>(())
/// ```
pub struct Bm25Index {
    documents: Vec<Document>,
    field: Field,
    postings: Arc<InvertedIndexReader>,
    lengths: FieldNormReader,
    average_length: f32,
}

impl Bm25Index {
    /// Indexes the documents. Their scores are ignored, their order breaks ties.
    ///
    /// # Errors
    /// [`SearchError::EmptyCorpus`] without documents, [`SearchError::Index`] when tantivy fails.
    pub fn new(documents: impl IntoIterator<Item = Document>) -> Result<Self, SearchError> {
        let documents: Vec<Document> = documents.into_iter().collect();
        if documents.is_empty() {
            return Err(SearchError::EmptyCorpus);
        }
        Self::build(documents).map_err(|error| SearchError::Index(error.to_string()))
    }

    /// Indexes a corpus file, JSONL or Parquet, of rows `{"id": …, "title": …, "contents": …}`.
    ///
    /// Only `contents` is required, other keys are ignored, blank lines are skipped.
    ///
    /// # Errors
    /// [`SearchError::Corpus`] names the file and the line.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, SearchError> {
        Self::new(read_corpus(path)?.into_iter().map(Document::from))
    }

    /// The documents, in the order of the corpus.
    pub fn documents(&self) -> &[Document] {
        &self.documents
    }

    fn build(documents: Vec<Document>) -> tantivy::Result<Self> {
        let tokenizers = TokenizerManager::new();
        tokenizers.register(TOKENIZER, TextAnalyzer::from(Words));

        let mut schema = Schema::builder();
        let indexing =
            TextFieldIndexing::default().set_tokenizer(TOKENIZER).set_index_option(IndexRecordOption::WithFreqs);
        let field = schema.add_text_field("text", TextOptions::default().set_indexing_options(indexing));

        // The documents stay here; tantivy holds postings and lengths only.
        let settings = IndexSettings {
            docstore_compression: Compressor::None,
            docstore_compress_dedicated_thread: false,
            ..Default::default()
        };

        // One writer and one segment, so that a document's number is its position in the corpus.
        let mut writer = Index::builder()
            .schema(schema.build())
            .settings(settings)
            .tokenizers(tokenizers)
            .single_segment_index_writer::<TantivyDocument>(RamDirectory::create(), BUILD_MEMORY)?;
        for document in &documents {
            let mut row = TantivyDocument::default();
            if let Some(title) = &document.title {
                row.add_text(field, title);
            }
            row.add_text(field, &document.contents);
            writer.add_document(row)?;
        }
        let index = writer.finalize()?;
        let segments = index.searchable_segments()?;
        let [segment] = segments.as_slice() else {
            return Err(tantivy::TantivyError::InternalError(format!(
                "expected one segment, found {}",
                segments.len()
            )));
        };

        let reader = SegmentReader::open(segment)?;
        let postings = reader.inverted_index(field)?;
        let lengths = reader
            .fieldnorms_readers()
            .get_field(field)?
            .unwrap_or_else(|| FieldNormReader::constant(reader.max_doc(), 0));
        let average_length = postings.total_num_tokens() as f32 / documents.len() as f32;
        Ok(Self { documents, field, postings, lengths, average_length })
    }

    /// Adds up every matching document's score, term by term.
    ///
    /// tantivy's own top-k search skips documents early and adds a document's terms in an order that
    /// depends on its neighbours: documents that deserve the same score may differ in the last bit,
    /// and the order of ties would depend on it.
    fn scores(&self, text: &str) -> std::io::Result<Vec<(u32, f32)>> {
        let mut scores = vec![0.0; self.documents.len()];
        let mut matched = Vec::new();
        for (token, count) in counted(words(text)) {
            let term = Term::from_field_text(self.field, &token);
            let Some(info) = self.postings.get_term_info(&term)? else { continue };
            let total = self.documents.len() as u64;
            let weight = Bm25Weight::for_one_term_without_explain(u64::from(info.doc_freq), total, self.average_length);
            let mut postings = self.postings.read_postings_from_terminfo(&info, IndexRecordOption::WithFreqs)?;
            let mut document = postings.doc();
            while document != tantivy::TERMINATED {
                let score = &mut scores[document as usize];
                // Every term adds something positive, so zero means that no term matched before.
                if *score == 0.0 {
                    matched.push(document);
                }
                *score += count as f32 * weight.score(self.lengths.fieldnorm_id(document), postings.term_freq());
                document = postings.advance();
            }
        }
        Ok(matched.into_iter().map(|document| (document, scores[document as usize])).collect())
    }
}

/// How often each token stands there. Sorted, so that a document's score is the same sum whatever the
/// order of the words.
fn counted(tokens: Vec<String>) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for token in tokens {
        *counts.entry(token).or_default() += 1;
    }
    counts
}

impl SearchEngine for Bm25Index {
    fn search(&self, query: &Query<'_>) -> Result<Vec<Document>, SearchError> {
        if query.top_k == 0 {
            return Ok(Vec::new());
        }
        let mut found = self.scores(query.text).map_err(|error| SearchError::Index(error.to_string()))?;
        let best_first = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if found.len() > query.top_k {
            found.select_nth_unstable_by(query.top_k - 1, best_first);
            found.truncate(query.top_k);
        }
        found.sort_unstable_by(best_first);
        let answer = |(document, score): (u32, f32)| Document {
            score: Some(score),
            ..self.documents[document as usize].clone()
        };
        Ok(found.into_iter().map(answer).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(texts: &[&str]) -> Bm25Index {
        let documents = texts.iter().enumerate().map(|(id, text)| Document {
            id: Some(id.to_string()),
            contents: text.to_string(),
            ..Default::default()
        });
        Bm25Index::new(documents).unwrap()
    }

    fn ids(index: &Bm25Index, text: &str, top_k: usize) -> Vec<usize> {
        let found = index.search(&Query { text, top_k, context: None }).unwrap();
        found.into_iter().map(|document| document.id.unwrap().parse().unwrap()).collect()
    }

    #[test]
    fn score_is_the_textbook_formula() {
        let index = index(&["red fox red", "red hen", "a blue whale sings all day"]);
        let found = index.search(&Query { text: "red", top_k: 5, context: None }).unwrap();
        let idf = (1.0_f64 + (3.0 - 2.0 + 0.5) / (2.0 + 0.5)).ln();
        let average = 11.0 / 3.0;
        let score = |tf: f64, length: f64| idf * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * length / average));
        assert!((f64::from(found[0].score.unwrap()) - score(2.0, 3.0)).abs() < 1e-6, "{found:?}");
        assert!((f64::from(found[1].score.unwrap()) - score(1.0, 2.0)).abs() < 1e-6, "{found:?}");
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn internet_codes_are_words() {
        let index = index(&["Internet code .td of Chad", "Internet code .ne of Niger", "a word in N.E. of it"]);
        assert_eq!(ids(&index, ".td", 3), [0]);
        assert_eq!(ids(&index, "TD", 3), [0]);
        assert_eq!(ids(&index, ".ne", 3), [1]);
    }

    #[test]
    fn a_query_is_data() {
        let index = index(&["and so on", "an open bracket", "title contents id"]);
        assert_eq!(ids(&index, "AND ) \"", 3), [0]);
        assert_eq!(ids(&index, "text:bracket^9 (", 3), [1]);
        for odd in ["", " ", ")", "\"", "*", "-open -bracket nothing", "a:b:c", "\\", "[a TO b]", "\u{0}", "zzz"] {
            index.search(&Query { text: odd, top_k: 3, context: None }).unwrap();
        }
        assert!(ids(&index, "", 3).is_empty());
        assert!(ids(&index, "zzz ! .", 3).is_empty());
        assert!(ids(&index, "and", 0).is_empty());
        assert_eq!(ids(&index, "and", usize::MAX), [0]);
    }

    #[test]
    fn letters_of_every_alphabet() {
        let index = index(&["Élysée in Paris", "Москва река", "東京 is Tokyo", "N’Djamena"]);
        assert_eq!(ids(&index, "élysée", 3), [0]);
        assert_eq!(ids(&index, "МОСКВА", 3), [1]);
        assert_eq!(ids(&index, "東京", 3), [2]);
        assert_eq!(ids(&index, "djamena", 3), [3]);
    }

    #[test]
    fn scripts_without_blanks_between_words() {
        // Each question is answered by the document at the same place.
        let pairs = [
            ("北京是中华人民共和国的首都，也是全国的政治中心。", "中国的首都是哪里？"),
            ("東京は日本の首都です。", "日本の首都はどこですか？"),
            ("コンピューターは計算する機械である。", "ｺﾝﾋﾟｭｰﾀｰとは何か"),
            ("대한민국의 수도는 서울이다.", "서울의 인구"),
            ("กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย", "เมืองหลวงของไทยคืออะไร"),
            ("ວຽງຈັນເປັນນະຄອນຫຼວງຂອງປະເທດລາວ", "ນະຄອນຫຼວງລາວ"),
            ("ភ្នំពេញជារាជធានីនៃប្រទេសកម្ពុជា", "រាជធានីកម្ពុជា"),
            ("နေပြည်တော်သည် မြန်မာနိုင်ငံ၏ မြို့တော်ဖြစ်သည်", "မြန်မာမြို့တော်"),
            ("नई दिल्ली भारत की राजधानी है।", "भारत की राजधानी क्या है?"),
            ("القاهرة عاصمة مصر", "ما هي عاصمة مصر؟"),
            ("2008年奥运会在北京举行。", "２００８年奥运会"),
            ("iPhone15を発表した。", "iphone15"),
            ("𠮷野家は牛丼の店", "𠮷"),
            ("鳥", "鳥"),
            ("Paris is the capital of France.", "capital of France"),
        ];
        let index = index(&pairs.map(|(document, _)| document));
        for (number, (_, question)) in pairs.iter().enumerate() {
            assert_eq!(ids(&index, question, 1), [number], "{question}");
        }
    }

    #[test]
    fn no_word_is_too_long() {
        let long = "x".repeat(300);
        let index = index(&["short", &long]);
        assert_eq!(ids(&index, &long, 3), [1]);
    }

    #[test]
    fn title_is_searched() {
        let document =
            Document { title: Some("Lake Chad".into()), contents: "A shallow water.".into(), ..Default::default() };
        let index = Bm25Index::new([document.clone()]).unwrap();
        let found = index.search(&Query { text: "chad", top_k: 1, context: None }).unwrap();
        assert_eq!(found[0].title, document.title);
    }

    #[test]
    fn a_corpus_file_is_indexed_and_a_broken_one_named_by_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("corpus.jsonl");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Bm25Index::read(&path)
        };
        let rows = "\u{feff}{\"id\": \"a\", \"title\": \"T\", \"contents\": \"one\"}\n\n{\"id\": 7, \"contents\": \"two\", \"kind\": \"x\"}\n{\"contents\": \"three\"}";
        let index = read(rows).unwrap();
        let [first, second, third] = index.documents() else { panic!("three documents") };
        assert_eq!(
            (first.id.as_deref(), first.title.as_deref(), first.contents.as_str()),
            (Some("a"), Some("T"), "one")
        );
        assert_eq!((second.id.as_deref(), second.title.as_deref(), second.contents.as_str()), (Some("7"), None, "two"));
        assert_eq!((third.id.as_deref(), third.contents.as_str()), (None, "three"));

        let error = |text: &str| read(text).err().unwrap().to_string();
        assert!(error("{\"contents\": \"one\"}\n{\"contents\": ").contains("corpus.jsonl, line 2: "));
        let missing = error("{\"text\": \"one\"}\n");
        assert!(missing.contains("line 1: `contents` is missing"), "{missing}");
        assert!(error("\n").contains("holds no rows"));
        // Parquet too: these rows are questions.
        let parquet = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/tests/golden/flat.parquet");
        let error = Bm25Index::read(parquet).err().unwrap().to_string();
        assert!(error.contains("flat.parquet, row 1: `contents` is missing"), "{error}");
        let error = Bm25Index::read("/nowhere/corpus.jsonl").err().unwrap().to_string();
        assert!(error.contains("/nowhere/corpus.jsonl: no such file"), "{error}");
    }

    #[test]
    fn an_empty_corpus_is_refused() {
        let error = Bm25Index::new([]).err().unwrap();
        assert!(error.to_string().contains("no documents"), "{error}");
    }

    #[test]
    fn documents_without_words_are_never_found() {
        let index = index(&["", " ! "]);
        assert!(ids(&index, "anything", 3).is_empty());
    }
}
