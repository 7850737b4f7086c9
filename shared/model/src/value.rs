//! One cell of the caller's table, as a template sees it.
//!
//! `tables` makes these from CSV text or from any Arrow type; `prompts` renders them. Keeping the type here lets the two
//! crates stay strangers. Dates, times and decimals arrive as [`Value::Text`] in their standard spelling (ISO 8601; all
//! of a decimal's digits), so that how they look in a prompt does not depend on floating point or on a locale.

use std::borrow::Cow;

/// One cell. Borrowed from the table where it can be.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// A null of a typed table. CSV has none: an empty cell is empty text.
    Null,
    /// A Boolean.
    Bool(bool),
    /// A signed integer of any width.
    Int(i64),
    /// An unsigned integer that may not fit an `i64`.
    UInt(u64),
    /// A floating-point number.
    Float(f64),
    /// Text, and whatever has one standard spelling: dates, times, decimals, UUIDs.
    Text(Cow<'a, str>),
    /// A list, in order.
    List(Vec<Value<'a>>),
    /// A struct or a map with text keys: fields in the table's order.
    Struct(Vec<(String, Value<'a>)>),
}
