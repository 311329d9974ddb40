//! The data of BM25: the documents of each token, and their lengths.

use std::collections::BTreeMap;
use std::sync::Arc;

use tantivy::directory::Directory;
use tantivy::fieldnorm::FieldNormReader;
use tantivy::postings::Postings as _;
use tantivy::query::Bm25Weight;
use tantivy::schema::{Field, IndexRecordOption, Schema, SchemaBuilder, TextFieldIndexing, TextOptions, Value};
use tantivy::store::{Compressor, StoreReader};
use tantivy::tokenizer::{TextAnalyzer, TokenizerManager};
use tantivy::{DocSet, Index, IndexSettings, InvertedIndexReader, SegmentReader, TantivyDocument, TantivyError, Term};

use crate::Document;
use crate::words::{Words, words};

/// The name under which tantivy knows our tokenizer.
const TOKENIZER: &str = "words";

/// Bytes that tantivy plans its tables for while it builds; they grow when the corpus is larger.
const BUILD_MEMORY: usize = 50_000_000;

/// The field that is searched: the title and the contents. It is the schema's first, in memory and on disk.
const TEXT: &str = "text";

/// Whether an index also holds what is shown of a document.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    Nothing,
    Documents,
}

/// The fields of an index.
pub(super) struct TextFields {
    schema: Schema,
    text: Field,
    /// Id, title and contents, as they are shown.
    shown: Option<[Field; 3]>,
}

impl TextFields {
    pub(super) fn new(stored: Stored) -> Self {
        let mut schema: SchemaBuilder = Schema::builder();
        let indexing =
            TextFieldIndexing::default().set_tokenizer(TOKENIZER).set_index_option(IndexRecordOption::WithFreqs);
        let text = schema.add_text_field(TEXT, TextOptions::default().set_indexing_options(indexing));
        let shown = (stored == Stored::Documents)
            .then(|| ["id", "title", "contents"].map(|name| schema.add_text_field(name, tantivy::schema::STORED)));
        Self { schema: schema.build(), text, shown }
    }

    /// Writes an index of the documents.
    pub(super) fn index(
        &self,
        directory: impl Into<Box<dyn Directory>>,
        documents: &[Document],
    ) -> tantivy::Result<Index> {
        let settings = IndexSettings {
            docstore_compression: Compressor::None,
            docstore_compress_dedicated_thread: false,
            ..Default::default()
        };
        // One writer and one segment, so that a document's number is its position in the corpus.
        let mut writer = Index::builder()
            .schema(self.schema.clone())
            .settings(settings)
            .tokenizers(tokenizers())
            .single_segment_index_writer::<TantivyDocument>(directory, BUILD_MEMORY)?;
        for document in documents {
            let mut row = TantivyDocument::default();
            if let Some(title) = &document.title {
                row.add_text(self.text, title);
            }
            row.add_text(self.text, &document.contents);
            if let Some(fields) = self.shown {
                let texts = [document.id.as_ref(), document.title.as_ref(), Some(&document.contents)];
                fields
                    .into_iter()
                    .zip(texts)
                    .filter_map(|(field, text)| Some((field, text?)))
                    .for_each(|(field, text)| row.add_text(field, text));
            }
            writer.add_document(row)?;
        }
        writer.finalize()
    }
}

fn tokenizers() -> TokenizerManager {
    // tantivy looks its own ones up for what is only stored, too.
    let tokenizers = TokenizerManager::default();
    tokenizers.register(TOKENIZER, TextAnalyzer::from(Words));
    tokenizers
}

/// The postings of an index of one segment.
pub(super) struct Postings {
    text: Field,
    postings: Arc<InvertedIndexReader>,
    lengths: FieldNormReader,
    average_length: f32,
    documents: usize,
}

impl Postings {
    pub(super) fn open(index: &Index) -> tantivy::Result<Self> {
        let reader = segment(index)?;
        let text = index.schema().get_field(TEXT)?;
        let postings = reader.inverted_index(text)?;
        let lengths = reader
            .fieldnorms_readers()
            .get_field(text)?
            .unwrap_or_else(|| FieldNormReader::constant(reader.max_doc(), 0));
        let documents = reader.max_doc() as usize;
        let average_length = postings.total_num_tokens() as f32 / documents as f32;
        Ok(Self { text, postings, lengths, average_length, documents })
    }

    pub(super) fn documents(&self) -> usize {
        self.documents
    }

    /// The best `top_k` documents and their scores, best first; equal ones by their position.
    pub(super) fn best(&self, text: &str, top_k: usize) -> std::io::Result<Vec<(u32, f32)>> {
        if top_k == 0 {
            return Ok(Vec::new());
        }
        let mut found = self.scores(text)?;
        let best_first = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if found.len() > top_k {
            found.select_nth_unstable_by(top_k - 1, best_first);
            found.truncate(top_k);
        }
        found.sort_unstable_by(best_first);
        Ok(found)
    }

    /// Adds up every matching document's score, term by term.
    ///
    /// tantivy's own top-k search skips documents early and adds a document's terms in an order that
    /// depends on its neighbours: documents that deserve the same score may differ in the last bit,
    /// and the order of ties would depend on it.
    fn scores(&self, text: &str) -> std::io::Result<Vec<(u32, f32)>> {
        let mut scores = vec![0.0; self.documents];
        let mut matched = Vec::new();
        for (token, count) in counted(words(text)) {
            let term = Term::from_field_text(self.text, &token);
            let Some(info) = self.postings.get_term_info(&term)? else { continue };
            let total = self.documents as u64;
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

/// The documents of an index that stores them.
pub(super) struct Shown {
    store: StoreReader,
    fields: [Field; 3],
}

/// Blocks of 16 kB of documents that are kept decoded.
const STORE_CACHE: usize = 100;

impl Shown {
    pub(super) fn open(index: &Index) -> tantivy::Result<Self> {
        let schema = index.schema();
        let field = |name| schema.get_field(name);
        let fields = [field("id")?, field("title")?, field("contents")?];
        Ok(Self { store: segment(index)?.get_store_reader(STORE_CACHE)?, fields })
    }

    pub(super) fn document(&self, number: u32) -> tantivy::Result<Document> {
        let row: TantivyDocument = self.store.get(number)?;
        let text = |field: Field| row.get_first(field).and_then(|value| Some(value.as_str()?.to_owned()));
        let [id, title, contents] = self.fields;
        Ok(Document { id: text(id), title: text(title), contents: text(contents).unwrap_or_default(), score: None })
    }
}

/// Opens an index for reading.
pub(super) fn open(directory: impl Into<Box<dyn Directory>>) -> tantivy::Result<Index> {
    let mut index = Index::open(directory)?;
    index.set_tokenizers(tokenizers());
    Ok(index)
}

fn segment(index: &Index) -> tantivy::Result<SegmentReader> {
    match index.searchable_segments()?.as_slice() {
        [segment] => SegmentReader::open(segment),
        segments => Err(TantivyError::InternalError(format!("expected one segment, found {}", segments.len()))),
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
