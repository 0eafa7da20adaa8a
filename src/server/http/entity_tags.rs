//! Lists of entity tags, of `If-Match` and `If-None-Match` (RFC 9110, 8.8.3): the one reader of tags. Whether a malformed
//! list is refused, and whether weak tags count, is the caller's to say.

use axum::http::{HeaderMap, HeaderName};

/// An entity tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EntityTag {
    /// Whether it is marked by `W/`.
    pub is_weak: bool,
    /// The text between the quotes.
    pub opaque: String,
}

/// The tags of a header that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EntityTags {
    /// Whether a line is `*`: any version.
    pub is_any: bool,
    /// The tags, in order; of a line with an error those before it.
    pub tags: Vec<EntityTag>,
    /// Whether no line has an error.
    pub is_whole: bool,
}

/// Comparison of a tag with one of a list (section 8.8.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TagComparison {
    /// A weak tag matches nothing.
    Strong,
    /// A weak tag matches its opaque text.
    Weak,
}

impl EntityTags {
    /// Reads the lines of a header as one list; `None` if the header is absent. Members may be empty (section 5.6.1).
    pub(crate) fn of(headers: &HeaderMap, name: &HeaderName) -> Option<EntityTags> {
        let mut found = EntityTags { is_whole: true, ..EntityTags::default() };
        for line in headers.get_all(name) {
            let line = String::from_utf8_lossy(line.as_bytes());
            match line.trim() {
                "*" => found.is_any = true,
                list => found.is_whole &= found.read_list(list),
            }
        }
        headers.contains_key(name).then_some(found)
    }

    /// Adds the tags of a line. Returns whether it has no error.
    fn read_list(&mut self, mut rest: &str) -> bool {
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            if rest.is_empty() {
                return true;
            }
            let (is_weak, quoted) = rest.strip_prefix("W/").map_or((false, rest), |quoted| (true, quoted));
            let Some((opaque, after)) = quoted.strip_prefix('"').and_then(|text| text.split_once('"')) else {
                return false;
            };
            self.tags.push(EntityTag { is_weak, opaque: opaque.to_string() });
            rest = after.trim_start_matches([' ', '\t']);
            if !rest.is_empty() && !rest.starts_with(',') {
                return false;
            }
        }
    }

    /// Whether the list is `*` or has a tag that matches this opaque text.
    pub(crate) fn contains(&self, opaque: &str, comparison: TagComparison) -> bool {
        let is_match = |tag: &EntityTag| tag.opaque == opaque && (!tag.is_weak || comparison == TagComparison::Weak);
        self.is_any || self.tags.iter().any(is_match)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use axum::http::header::IF_MATCH;
    use proptest::prelude::*;

    use super::*;

    fn read(values: &[&[u8]]) -> Option<EntityTags> {
        let lines = values.iter().map(|value| (IF_MATCH, HeaderValue::from_bytes(value).unwrap()));
        EntityTags::of(&lines.collect(), &IF_MATCH)
    }

    /// The tags, weak ones with their mark, and whether the list has no error.
    fn tags(values: &[&str]) -> (Vec<String>, bool) {
        let found = read(&values.iter().map(|value| value.as_bytes()).collect::<Vec<_>>()).unwrap();
        assert!(!found.is_any);
        let mark = |tag: EntityTag| if tag.is_weak { format!("W/{}", tag.opaque) } else { tag.opaque };
        (found.tags.into_iter().map(mark).collect(), found.is_whole)
    }

    /// FILE-14, GROUP-01: lists as the RFC writes them, and what stands before an error.
    #[test]
    fn tags_are_read() {
        for (values, expected, is_whole) in [
            (&[r#""3""#][..], &["3"][..], true),
            (&[r#"W/"3""#], &["W/3"], true),
            (&[r#""3", W/"a,b" ,"c""#], &["3", "W/a,b", "c"], true),
            (&[r#","a",, "b","#], &["a", "b"], true),
            (&[r#""a""#, r#""b""#], &["a", "b"], true),
            (&[r#""""#], &[""], true),
            (&[""], &[], true),
            (&[" , "], &[], true),
            (&["3"], &[], false),
            (&[r#"w/"3""#], &[], false),
            (&[r#"W/"3"#], &[], false),
            (&["W/*"], &[], false),
            (&[r#""3" "4""#], &["3"], false),
            (&[r#""3"4"#, r#""5""#], &["3", "5"], false),
            (&[r#""a", *"#], &["a"], false),
            (&[r#"*, "a""#], &[], false),
        ] {
            assert_eq!(tags(values), (expected.iter().map(|tag| tag.to_string()).collect(), is_whole), "{values:?}");
        }
        assert_eq!(read(&[]), None);
        assert!(read(&[b"*"]).unwrap().is_any && read(&[b"\"a\"", b" * "]).unwrap().is_any);
        assert!(read(&[b"\"\xff\", \"a\""]).unwrap().contains("a", TagComparison::Strong), "bytes of no text");
    }

    /// FILE-14: a weak tag counts under weak comparison alone.
    #[test]
    fn tags_are_compared() {
        let found = read(&[br#""a", W/"b""#]).unwrap();
        for (opaque, strong, weak) in
            [("a", true, true), ("b", false, true), ("c", false, false), ("\"a\"", false, false)]
        {
            assert_eq!(found.contains(opaque, TagComparison::Strong), strong, "{opaque}");
            assert_eq!(found.contains(opaque, TagComparison::Weak), weak, "{opaque}");
        }
        assert!(read(&[b"*"]).unwrap().contains("any", TagComparison::Strong));
    }

    proptest! {
        /// No bytes cause a panic, and no tag holds a quote.
        #[test]
        fn no_list_panics(bytes in proptest::collection::vec(any::<u8>(), 0..40), text in "[W/\"*, a]{0,30}") {
            for bytes in [bytes.as_slice(), text.as_bytes()] {
                let Ok(value) = HeaderValue::from_bytes(bytes) else { continue };
                let found = EntityTags::of(&HeaderMap::from_iter([(IF_MATCH, value)]), &IF_MATCH).unwrap();
                prop_assert!(found.tags.iter().all(|tag| !tag.opaque.contains('"')));
            }
        }
    }
}
