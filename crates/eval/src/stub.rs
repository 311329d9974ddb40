//! stub
/// stub
#[derive(Clone, Debug, serde::Deserialize)]
pub struct Question {
    /// a
    pub id: String,
    /// a
    pub question: String,
    /// a
    pub golden_answers: Vec<String>,
    /// a
    #[serde(default)]
    pub data_source: Option<String>,
    /// a
    #[serde(default)]
    pub hops: Option<usize>,
}
