//! What the list headers have in common (RFC 9110, 5.6.1): lines that are one list, members and parameters that may hold
//! quoted strings. What the members mean is not known here.

use axum::http::header::AsHeaderName;
use axum::http::{HeaderMap, HeaderValue};

/// All lines of a header as one list. Bytes that are no UTF-8, which quoted strings may hold, spoil no member but their own.
pub(crate) fn join_header_lines(headers: &HeaderMap, name: impl AsHeaderName) -> String {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.get_all(name).iter().map(text).collect::<Vec<_>>().join(",")
}

/// Splits at a character that stands in no quoted string. A string that is not closed goes on to the end.
pub(crate) fn split_list(text: &str, position: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c: char| {
        let ends = c == position && !quoted;
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        ends
    })
}

/// A token, or what a quoted string stands for.
pub(crate) fn unquoted(text: &str) -> String {
    let text = text.trim();
    let Some(inner) = text.strip_prefix('"') else { return text.to_string() };
    let (mut plain, mut characters) = (String::new(), inner.chars());
    while let Some(c) = characters.next() {
        match c {
            '"' => break,
            '\\' => plain.extend(characters.next()),
            _ => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// HDR-04: separators inside of quoted strings separate nothing.
    #[test]
    fn quoted_strings_are_whole() {
        for (text, parts) in [
            ("a,b", &["a", "b"][..]),
            (r#"a="x,y",b"#, &[r#"a="x,y""#, "b"]),
            (r#"a="x\",y",b"#, &[r#"a="x\",y""#, "b"]),
            (r#"a="x,y"#, &[r#"a="x,y"#]),
            (r"a\,b", &[r"a\", "b"]),
            ("", &[""]),
        ] {
            assert_eq!(split_list(text, ',').collect::<Vec<_>>(), parts, "{text}");
        }
        for (text, plain) in
            [(" a ", "a"), (r#""a b""#, "a b"), (r#""a\"b""#, "a\"b"), (r#""a"#, "a"), (r#""a\"#, "a"), ("", "")]
        {
            assert_eq!(unquoted(text), plain, "{text}");
        }
    }

    proptest! {
        /// Nothing is lost at a split, and nothing panics.
        #[test]
        fn parts_are_the_whole(text in "[a-c,;=\"\\\\é ]{0,30}") {
            prop_assert_eq!(split_list(&text, ',').collect::<Vec<_>>().join(","), text.as_str());
            unquoted(&text);
        }
    }
}
