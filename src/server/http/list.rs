//! Lists as headers write them: parts between commas or semicolons, where a quoted string is not looked into
//! (RFC 9110, 5.6).

/// The parts of a text between characters that stand in no quoted string, as they are.
pub fn split(text: &str, at: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c: char| {
        let ends = c == at && !quoted;
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        ends
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_strings_are_not_looked_into() {
        let parts = |text| split(text, ',').collect::<Vec<_>>();
        assert_eq!(parts(r#"a, b="x,\",y" ,"#), ["a", r#" b="x,\",y" "#, ""]);
        assert_eq!(parts(r#"a\,b"#), [r"a\", "b"], "a backslash escapes in quotes alone");
        assert_eq!(parts(r#"a="b,c"#), [r#"a="b,c"#]);
        assert_eq!(parts(""), [""]);
    }
}
