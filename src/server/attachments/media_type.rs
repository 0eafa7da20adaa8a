//! The media type under which an attachment is sent: its own if it is a legal one.

/// The media type of what has none, or no legal one.
const UNKNOWN: &str = "application/octet-stream";

/// The `Content-Type` of an attachment with this `contentType`.
pub(crate) fn sent_media_type(given: Option<&str>) -> &str {
    given.filter(|text| is_media_type(text)).unwrap_or(UNKNOWN)
}

/// Whether a text is a media type as HTTP has it: type, subtype and parameters
/// (<https://www.rfc-editor.org/rfc/rfc9110#section-8.3.1>).
fn is_media_type(text: &str) -> bool {
    let (essence, mut rest) = text.split_at(text.find([';', ' ', '\t']).unwrap_or(text.len()));
    let Some((kind, subtype)) = essence.split_once('/') else { return false };
    if !is_token(kind) || !is_token(subtype) {
        return false;
    }
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        let Some(parameter) = rest.strip_prefix(';') else { return rest.is_empty() };
        let parameter = parameter.trim_start_matches([' ', '\t']);
        let Some((name, value)) = parameter.split_once('=') else { return false };
        let Some(end) = value_end(value) else { return false };
        if !is_token(name) {
            return false;
        }
        rest = &value[end..];
    }
}

/// Whether a text is a token.
fn is_token(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_allowed)
}

/// The end of the value of a parameter, a token or a quoted string; `None` if it is neither.
fn value_end(text: &str) -> Option<usize> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([';', ' ', '\t']).unwrap_or(text.len());
        return is_token(&text[..end]).then_some(end);
    };
    let mut bytes = quoted.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return Some(at + 2),
            b'\\' => {
                bytes.next().filter(|(_, byte)| matches!(byte, b' '..=b'~'))?;
            }
            b' '..=b'~' => {}
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ATTACH-02: what is no media type is sent as bytes of any kind, and nothing gets into the headers.
    #[test]
    fn only_media_types_are_sent() {
        for legal in [
            "text/plain",
            "application/pdf",
            "text/plain;charset=utf-8",
            "text/plain ; charset=\"utf-8\" ;a=b",
            "application/vnd.a+json",
            "multipart/mixed; boundary=\"a \\\" ; b\"",
        ] {
            assert_eq!(sent_media_type(Some(legal)), legal);
        }
        for other in [
            "",
            "text",
            "text/",
            "/plain",
            "text/plain;",
            "text/plain; charset",
            "text/plain; =a",
            "text/plain; a=",
            "text/plain, text/html",
            "text/plain\r\nSet-Cookie: a=b",
            "text/plain; a=\"b",
            "text/plain; a=\"\u{e9}\"",
            "text/é",
            "text/plain; a=\"b\\",
            "text/plain; a=\"\n\"",
            " text/plain",
            "*/*;q=a b",
        ] {
            assert_eq!(sent_media_type(Some(other)), UNKNOWN, "{other:?}");
        }
        assert_eq!(sent_media_type(None), UNKNOWN);
    }
}
