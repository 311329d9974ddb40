//! Real engines of our own: BM25 over a corpus of passages, in memory and on disk.

mod folder;
mod postings;

use std::path::Path;

use tantivy::directory::RamDirectory;
use zerosearch_data::read_corpus;

use self::postings::{Postings, Stored, TextFields};
use crate::{Document, Query, SearchEngine, SearchError};

pub use self::folder::Bm25Folder;

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
    postings: Postings,
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
        // The documents stay here; tantivy holds postings and lengths only.
        let fields = TextFields::new(Stored::Nothing);
        let built = fields.index(RamDirectory::create(), &documents).and_then(|index| Postings::open(&index));
        let postings = built.map_err(|error| SearchError::Index(error.to_string()))?;
        Ok(Self { documents, postings })
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
}

impl SearchEngine for Bm25Index {
    fn search(&self, query: &Query<'_>) -> Result<Vec<Document>, SearchError> {
        let found = self.postings.best(query.text, query.top_k);
        let found = found.map_err(|error| SearchError::Index(error.to_string()))?;
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
