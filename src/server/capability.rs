//! placeholder
use super::routes::Enabled;
use serde_json::{Value, json};
/// x
pub fn statement(_: &str, _: &Enabled) -> Value {
    json!({})
}
/// x
pub fn operation_definition(_: &str, _: &str, _: &Enabled) -> Option<Value> {
    None
}
