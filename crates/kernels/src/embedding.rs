//! Rows of a table of embeddings.

use burn::tensor::Tensor;

use crate::reference;

/// The embeddings of tokens: rows of `table` (`[vocab, width]`), `[tokens, width]`. On a GPU the gradients of equal tokens are added up in
/// the order of the tokens, each token's by itself.
///
/// # Panics
///
/// If a token is not below `vocab`.
pub fn embedding(table: Tensor<2>, tokens: &[u32]) -> Tensor<2> {
    let [vocab, _] = table.dims();
    assert!(tokens.iter().all(|token| (*token as usize) < vocab), "embedding: a token is not of a table of {vocab}");
    #[cfg(feature = "cube")]
    if crate::cube::training::is_table(&table) {
        return crate::cube::training::embedding(table, tokens);
    }
    reference::embedding(table, tokens)
}
