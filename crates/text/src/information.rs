//! Observations in tokens.

use zerosearch_grammar::EpisodeFormat;
use zerosearch_trajectory::TokenId;

use crate::Codec;

/// The tokens of [`EpisodeFormat::information`]: the block's own tags as the model knows them, the body with special tokens off.
pub fn encode_information(codec: &Codec, format: &EpisodeFormat, body: &str) -> Vec<TokenId> {
    [
        codec.encode(&format.information_open()),
        codec.encode_document(&format.escape_tags(body)),
        codec.encode(&format.information_close()),
    ]
    .concat()
}
