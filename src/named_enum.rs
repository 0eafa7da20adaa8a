//! Enums that are written by name: in records, manifests, hashes, configurations and responses.
//!
//! Such an enum has a `const fn name` and a list `ALL`, both written by hand; [`by_name!`] derives `from_name` and
//! serde from them. So renaming a variant changes no file, hash or response. A name that was released never changes:
//! tests pin it.

/// Implements `from_name`, and serde by the values of `name`, for enums that have `ALL` and `name`.
macro_rules! by_name {
    ($($named:ty),+ $(,)?) => { $(
        impl $named {
            /// The value with this `name`; `None` when there is none.
            pub(crate) fn from_name(name: &str) -> Option<$named> {
                <$named>::ALL.into_iter().find(|value| value.name() == name)
            }
        }

        impl serde::Serialize for $named {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> serde::Deserialize<'de> for $named {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<$named, D::Error> {
                const NAMES: [&str; <$named>::ALL.len()] = {
                    let mut names = [""; <$named>::ALL.len()];
                    let mut at = 0;
                    while at < names.len() {
                        names[at] = <$named>::ALL[at].name();
                        at += 1;
                    }
                    names
                };
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
                <$named>::from_name(&text).ok_or_else(|| serde::de::Error::unknown_variant(&text, &NAMES))
            }
        }
    )+ };
}
pub(crate) use by_name;

/// Asserts that serde writes each value as its word, reads each word as its value, and refuses other words.
#[cfg(test)]
#[track_caller]
pub(crate) fn pinned<T>(all: &[T], words: &[&str])
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let written: Vec<String> = all.iter().map(|value| serde_json::to_string(value).unwrap()).collect();
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    assert_eq!(written, quoted);
    for (value, word) in all.iter().zip(&quoted) {
        assert_eq!(serde_json::from_str::<T>(word).unwrap(), *value);
    }
    assert!(serde_json::from_str::<T>("\"no such word\"").is_err());
}

#[cfg(test)]
mod tests {
    use crate::codec::compression::{Compression, UnprovenPolicy};
    use crate::extract::Validate;
    use crate::group::lookup::MembershipRule;
    use crate::group::member_filter::FilteredGroups;
    use crate::hash::digest::DigestAlgorithm;
    use crate::issue::{IssueCode, Severity};
    use crate::named_enum::pinned;
    use crate::policies::{LateArrivals, MissingLastUpdated, PatientStrict};
    use crate::write::status_file::Status;

    /// The words of released versions. Each stands in a record, a manifest or a hash on somebody's disk: a test that fails
    /// here is mended by putting the word back, not by changing the test.
    #[test]
    fn words_on_disk_stay_as_they_are() {
        pinned(&[MembershipRule::Listed, MembershipRule::Active], &["listed", "active"]);
        pinned(&[FilteredGroups::Evaluated, FilteredGroups::Refused], &["evaluated", "refused"]);
        pinned(&[LateArrivals::Include, LateArrivals::Report], &["include", "report"]);
        pinned(&[MissingLastUpdated::Include, MissingLastUpdated::Exclude], &["include", "exclude"]);
        pinned(&[PatientStrict::Any, PatientStrict::All], &["any", "all"]);
        pinned(&[Compression::None, Compression::Gzip, Compression::Zstd], &["none", "gzip", "zstd"]);
        let digests = [DigestAlgorithm::Xxh3, DigestAlgorithm::Sha256, DigestAlgorithm::None];
        pinned(&digests, &["xxh3", "sha256", "none"]);
        pinned(&[Validate::Full, Validate::Structure], &["full", "structure"]);
        pinned(&UnprovenPolicy::ALL, &["fault", "export"]);
        let severities = [Severity::Information, Severity::Warning, Severity::Error, Severity::Fatal];
        pinned(&severities, &["information", "warning", "error", "fatal"]);
        let states = [Status::InProgress, Status::Successful, Status::Failed, Status::Cancelled];
        pinned(&states, &["In Progress", "Successful", "Failed", "Cancelled"]);
        let codes = [
            IssueCode::BusinessRule,
            IssueCode::Conflict,
            IssueCode::Deleted,
            IssueCode::Exception,
            IssueCode::Expired,
            IssueCode::Forbidden,
            IssueCode::Incomplete,
            IssueCode::Informational,
            IssueCode::Invalid,
            IssueCode::Login,
            IssueCode::NoStore,
            IssueCode::NotFound,
            IssueCode::NotSupported,
            IssueCode::Processing,
            IssueCode::Required,
            IssueCode::Structure,
            IssueCode::Throttled,
            IssueCode::Timeout,
            IssueCode::TooCostly,
            IssueCode::TooLong,
            IssueCode::Transient,
            IssueCode::Value,
        ];
        let words = [
            "business-rule",
            "conflict",
            "deleted",
            "exception",
            "expired",
            "forbidden",
            "incomplete",
            "informational",
            "invalid",
            "login",
            "no-store",
            "not-found",
            "not-supported",
            "processing",
            "required",
            "structure",
            "throttled",
            "timeout",
            "too-costly",
            "too-long",
            "transient",
            "value",
        ];
        pinned(&codes, &words);
    }
}
