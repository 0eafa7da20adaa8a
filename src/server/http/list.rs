//! Syntax of list headers (RFC 9110, 5.6.1): several lines form one list, and members may hold quoted strings. The
//! meaning of members is not known here.

use axum::http::header::AsHeaderName;
use axum::http::{HeaderMap, HeaderValue};

/// All lines of a header as one list. Bytes that are not UTF-8 are replaced, which affects only their own member.
pub(crate) fn join_header_lines(headers: &HeaderMap, name: impl AsHeaderName) -> String {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.get_all(name).iter().map(text).collect::<Vec<_>>().join(",")
}

/// Splits at the character `separator` outside quoted strings. An unclosed string extends to the end.
pub(crate) fn split_list(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c: char| {
        let ends = c == separator && !quoted;
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        ends
    })
}

/// A token, or the content of a quoted string without quotes and escapes.
pub(crate) fn unquoted(text: &str) -> String {
    let text = text.trim();
    let Some(inner) = text.strip_prefix('"') else { return text.to_string() };
    let (mut content, mut characters) = (String::new(), inner.chars());
    while let Some(c) = characters.next() {
        match c {
            '"' => break,
            '\\' => content.extend(characters.next()),
            _ => content.push(c),
        }
    }
    content
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// HDR-04: separators inside quoted strings do not separate.
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
        for (text, content) in
            [(" a ", "a"), (r#""a b""#, "a b"), (r#""a\"b""#, "a\"b"), (r#""a"#, "a"), (r#""a\"#, "a"), ("", "")]
        {
            assert_eq!(unquoted(text), content, "{text}");
        }
    }

    proptest! {
        /// A split loses nothing, and no text causes a panic.
        #[test]
        fn parts_are_the_whole(text in "[a-c,;=\"\\\\é ]{0,30}") {
            prop_assert_eq!(split_list(&text, ',').collect::<Vec<_>>().join(","), text.as_str());
            unquoted(&text);
        }
    }
}
