//! Counts in sentences: a number with its noun, the form of a verb for it, and a list of numbers.

use std::borrow::Cow;

/// A number and its noun, which is given in the singular: `1 resource`, `2 resources`.
pub(crate) fn counted(number: u64, noun: &str) -> String {
    format!("{number} {}", noun_form(number, noun))
}

/// The noun, given in the singular, in the form that a number asks for.
pub(crate) fn noun_form(number: u64, noun: &str) -> Cow<'_, str> {
    if number == 1 {
        return noun.into();
    }
    let ends_with = |endings: &[&str]| endings.iter().any(|ending| noun.ends_with(ending));
    match noun.strip_suffix('y') {
        Some(stem) if !ends_with(&["ay", "ey", "oy"]) => format!("{stem}ies"),
        _ if ends_with(&["s", "x", "ch", "sh"]) => format!("{noun}es"),
        _ => format!("{noun}s"),
    }
    .into()
}

/// The word, a verb or a pronoun, in the form that a number asks for.
pub(crate) fn word_form<'a>(number: u64, one: &'a str, many: &'a str) -> &'a str {
    if number == 1 { one } else { many }
}

/// Numbered things in a sentence, of which the first few are known: `line 2`, `lines 2, 3 and 9`, `lines 2, 3 and 7 more`.
pub(crate) fn numbered(noun: &str, first: &[u64], count: u64) -> String {
    let mut words: Vec<String> = first.iter().map(u64::to_string).collect();
    let more = count - first.len() as u64;
    words.extend((more > 0).then(|| format!("{more} more")));
    let last = words.pop().unwrap_or_default();
    let before = if words.is_empty() { String::new() } else { words.join(", ") + " and " };
    format!("{} {before}{last}", noun_form(count, noun))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nouns_and_verbs_agree_with_their_number() {
        for (noun, many) in [
            ("resource", "resources"),
            ("DELETE entry", "DELETE entries"),
            ("key", "keys"),
            ("match", "matches"),
            ("index", "indexes"),
        ] {
            assert_eq!(counted(1, noun), format!("1 {noun}"));
            assert_eq!((counted(0, noun), counted(2, noun)), (format!("0 {many}"), format!("2 {many}")));
        }
        assert_eq!([0, 1, 2].map(|number| word_form(number, "was", "were")), ["were", "was", "were"]);
    }

    #[test]
    fn numbered_things_are_listed() {
        assert_eq!(numbered("line", &[2], 1), "line 2");
        assert_eq!(numbered("line", &[2, 3], 2), "lines 2 and 3");
        assert_eq!(numbered("line", &[2, 3, 9], 3), "lines 2, 3 and 9");
        assert_eq!(numbered("line", &[2, 3], 9), "lines 2, 3 and 7 more");
    }
}
