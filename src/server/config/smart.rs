//! `[smart]` and the `smart` table of a client: SMART Backend Services, with all checks of them.
//!
//! Nothing here is secret: a registration holds public keys.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::server::smart::jwk::KeySet;
use crate::server::smart::key_source::KeyPlace;
use crate::server::smart::scope::ScopeRights;

/// `[smart]`: tokens for clients that sign assertions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SmartConfig {
    /// Seconds for which an access token is valid.
    pub token_seconds: u64,
    /// Seconds by which the clocks of clients may be ahead or behind.
    pub clock_skew_seconds: u64,
    /// Whether an assertion may be used more than once. SMART forbids it.
    pub assertion_reuse: bool,
    /// Directory in which several processes remember used assertions; empty for files of this process alone.
    pub jti_dir: PathBuf,
    /// Days after which access tokens are signed with a new key.
    pub key_days: u64,
    /// Whether the export of a Group needs a scope with the right to read Groups (AUTH-24).
    pub require_group_scope: bool,
    /// Sustained token requests per second, of one address and of one client.
    pub requests_per_second: u32,
    /// Token requests at once, before `requests_per_second` applies.
    pub requests_burst: u32,
    /// Sustained refused token requests per minute of one address; more wait.
    pub failures_per_minute: u32,
    /// Hosts of key sets that may have private addresses, and those on this machine plain HTTP.
    pub jwks_hosts: Vec<String>,
    /// PEM file of the authorities whose certificates hosts of key sets must have; empty for those of the system.
    pub ca_file: PathBuf,
    /// File with the URL of the proxy through which key sets are fetched, but for `jwks_hosts`; empty for none.
    pub proxy_file: PathBuf,
}

impl Default for SmartConfig {
    fn default() -> SmartConfig {
        SmartConfig {
            token_seconds: 300,
            clock_skew_seconds: 30,
            assertion_reuse: false,
            jti_dir: PathBuf::new(),
            key_days: 30,
            require_group_scope: true,
            requests_per_second: 20,
            requests_burst: 100,
            failures_per_minute: 60,
            jwks_hosts: Vec::new(),
            ca_file: PathBuf::new(),
            proxy_file: PathBuf::new(),
        }
    }
}

impl SmartConfig {
    /// Every problem of `[smart]`, one sentence each.
    pub(crate) fn settings_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (key, value, least, most) in [
            ("token_seconds", self.token_seconds, 10, 3600),
            ("clock_skew_seconds", self.clock_skew_seconds, 0, 300),
            ("key_days", self.key_days, 1, 3650),
            ("requests_per_second", self.requests_per_second.into(), 1, 1_000_000),
            ("requests_burst", self.requests_burst.into(), 1, 1_000_000),
            ("failures_per_minute", self.failures_per_minute.into(), 1, 1_000_000),
        ] {
            if !(least..=most).contains(&value) {
                problems.push(format!("smart.{key} is {value}; give {least} to {most}"));
            }
        }
        for host in &self.jwks_hosts {
            let is_host =
                !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte));
            // A colon is for IPv6 addresses alone.
            if !is_host || host.contains(':') && host.parse::<std::net::Ipv6Addr>().is_err() {
                problems.push(format!(
                    "smart.jwks_hosts holds {host:?}, which is no host: give a name or an address alone"
                ));
            }
        }
        problems
    }
}

/// `smart` of a `[[clients]]` entry: its registration for SMART Backend Services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SmartClientConfig {
    /// Its OAuth id; the name of the client if empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub client_id: String,
    /// Its key set as JSON.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub jwks: String,
    /// File of its key set.
    #[serde(default, skip_serializing_if = "is_empty_path")]
    pub jwks_file: PathBuf,
    /// URL of its key set, and the only `jku` that its assertions may name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub jwks_url: String,
    /// Scopes that it may be granted.
    #[serde(default = "all_scopes")]
    pub scopes: Vec<String>,
    /// Whether it exports Groups under a scope for Groups alone; `None` for what `[smart]` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require_group_scope: Option<bool>,
}

fn is_empty_path(path: &std::path::Path) -> bool {
    path.as_os_str().is_empty()
}

/// Default of `scopes`: all types, whose number `types` of the client may reduce.
fn all_scopes() -> Vec<String> {
    vec!["system/*.rs".to_string()]
}

impl SmartClientConfig {
    /// Where its keys are.
    ///
    /// # Errors
    /// A sentence, if they are in no place or in several, or the ones in the configuration cannot be used.
    pub(crate) fn key_place(&self) -> Result<KeyPlace, String> {
        let places = [!self.jwks.is_empty(), !is_empty_path(&self.jwks_file), !self.jwks_url.is_empty()];
        if places.into_iter().filter(|is_given| *is_given).count() != 1 {
            return Err(
                "[clients.smart] has to say where the keys are: give one of jwks, jwks_file and jwks_url, and no second one".to_string()
            );
        }
        if !self.jwks.is_empty() {
            return KeySet::parse(self.jwks.as_bytes())
                .map(KeyPlace::Inline)
                .map_err(|why| format!("jwks in [clients.smart] {why}"));
        }
        Ok(match self.jwks_url.is_empty() {
            true => KeyPlace::File(self.jwks_file.clone()),
            false => KeyPlace::Url(self.jwks_url.clone()),
        })
    }

    /// What its scopes open.
    ///
    /// # Errors
    /// A sentence on each scope that cannot be granted.
    pub(crate) fn scope_rights(&self) -> Result<ScopeRights, Vec<String>> {
        ScopeRights::registered(self.scopes.iter().map(String::as_str))
    }
}

#[cfg(test)]
mod tests {
    use crate::server::config::Config;
    use crate::server::config::auth::registration_problems;

    const SET: &str = r#"{"keys":[{"kty":"EC","kid":"k","crv":"P-256","x":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc","y":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc"}]}"#;

    fn read(text: &str) -> Config {
        Config::parse(&text.replace("SET", &format!("jwks = '{SET}'"))).unwrap()
    }

    /// AUTH-10: a registration by each of three places; one problem is told for each that is wrong.
    #[test]
    fn registrations_are_checked() {
        for (text, words) in [
            ("SET", &[][..]),
            ("jwks_file = 'keys.json'", &[]),
            ("jwks_url = 'https://keys.example.org/jwks'", &[]),
            ("SET\nclient_id = 'https://app.example.org/1'\nscopes = ['system/Patient.rs']", &[]),
            ("", &["where the keys are"]),
            ("SET\njwks_file = 'keys.json'", &["where the keys are"]),
            ("jwks = '{}'", &["jwks in [clients.smart] is no"]),
            ("jwks_url = 'http://keys.example.org/jwks'", &["plain HTTP"]),
            (
                "SET\nclient_id = 'a b'\nscopes = ['system/*.*', 'user/*.rs']",
                &["client_id in [clients.smart]", "write", "no system scope"],
            ),
            ("SET\nscopes = []", &["no scope is given"]),
        ] {
            let config = read(&format!("[[clients]]\nname = 'a'\n[clients.smart]\n{text}\n"));
            let problems = registration_problems(&config.smart, &config.clients);
            assert_eq!(problems.len(), words.len(), "{text}: {problems:?}");
            for word in words {
                assert!(problems.iter().any(|problem| problem.contains(word)), "{word}: {problems:?}");
            }
        }
        let twice = read(
            "[[clients]]\nname = 'a'\nsmart = { SET }\n[[clients]]\nname = 'b'\nsmart = { client_id = 'a', SET }\n",
        );
        assert!(registration_problems(&twice.smart, &twice.clients)[0].contains("another client"));
    }

    /// What the page on security says to write can be written.
    #[test]
    fn the_page_is_right() {
        let page = include_str!("../../docs/security.md");
        let blocks: Vec<&str> = page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
        let config = Config::parse(&blocks.join("\n")).unwrap();
        assert_eq!(config.config_problems(), Vec::<String>::new());
        assert_eq!((blocks.len(), config.clients[0].oauth_id()), (2, Some("nightly-app")));
    }

    /// Numbers within bounds, and hosts without ports.
    #[test]
    fn settings_are_checked() {
        for (text, problems) in [
            ("", 0),
            ("token_seconds = 3600\njwks_hosts = ['127.0.0.1', '::1', 'keys.internal']", 0),
            ("token_seconds = 3601\nclock_skew_seconds = 301\nkey_days = 0\nrequests_per_second = 0", 4),
            ("requests_burst = 0\nfailures_per_minute = 0", 2),
            ("jwks_hosts = ['keys.internal:80', 'http://keys', '']", 3),
        ] {
            let found = read(&format!("[smart]\n{text}")).smart.settings_problems();
            assert_eq!(found.len(), problems, "{text}: {found:?}");
        }
    }
}
