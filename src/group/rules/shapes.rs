//! Shapes of the elements of a Group: what kind of JSON value each must be.

use crate::group::rules::tokens::JsonToken;

/// Shapes of the elements of R4's Group (<https://hl7.org/fhir/R4/group.html>); other elements are accepted unchecked.
pub(crate) const SHAPES: [(&str, ElementShape); 13] = [
    ("active", ElementShape::Bool),
    ("actual", ElementShape::Bool),
    ("characteristic", ElementShape::Objects),
    ("code", ElementShape::Object),
    ("contained", ElementShape::Objects),
    ("extension", ElementShape::Objects),
    ("identifier", ElementShape::Objects),
    ("managingEntity", ElementShape::Object),
    ("member", ElementShape::Objects),
    ("meta", ElementShape::Object),
    ("name", ElementShape::Text),
    ("quantity", ElementShape::Number),
    ("type", ElementShape::Text),
];

/// Shape that an element of a Group must have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ElementShape {
    /// `true` or `false`.
    Bool,
    /// Any number.
    Number,
    /// An object.
    Object,
    /// An array of objects.
    Objects,
    /// A string that is not empty.
    Text,
}

impl ElementShape {
    /// Words for the shape in a violation.
    pub(crate) fn name(self) -> &'static str {
        match self {
            ElementShape::Bool => "true or false",
            ElementShape::Number => "a number",
            ElementShape::Object => "an object",
            ElementShape::Objects => "an array of objects",
            ElementShape::Text => "a string that is not empty",
        }
    }

    /// Whether a value that starts with a token has the shape.
    pub(crate) fn fits(self, token: JsonToken<'_>) -> bool {
        match (self, token) {
            (ElementShape::Bool, JsonToken::Bool(_))
            | (ElementShape::Number, JsonToken::Number)
            | (ElementShape::Object, JsonToken::Object) => true,
            // Items of another kind are reported one by one by `item`.
            (ElementShape::Objects, JsonToken::Array) => true,
            // A text too long to be read is not empty.
            (ElementShape::Text, JsonToken::String(text)) => text.get().is_none_or(|text| !text.trim().is_empty()),
            _ => false,
        }
    }
}
