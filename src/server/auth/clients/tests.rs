//! Who is let in, and what the others hear.

use super::super::secret::hash;
use super::*;
use crate::server::config::Config;

const DOOR: Door<'static> = Door { tenant: "default", bearer: true, client_headers: true };
const NOW: &str = "2026-06-01T00:00:00Z";

fn table(text: &str) -> ClientTable {
    let right = hash("right", &[1; 16]).0;
    let config = Config::parse(&text.replace("HASH", &right)).unwrap();
    ClientTable::new(&config.auth, &config.clients).unwrap()
}

fn provider() -> StaticClients {
    let text = "[[clients]]\nname = 'a'\ntokens = [{ id = 'ta', hash = 'HASH' }, { id = 'tp', hash = 'HASH', patient = 'p' },\n\
                { id = 'old', hash = 'HASH', expires = '2026-06-01T00:00:00Z' }, { id = 'new', hash = 'HASH', expires = '2026-06-01T00:00:01Z' }]\n\
                client_id = 'ca'\nclient_secret_hash = 'HASH'\n\
                [[clients]]\nname = 'b'\ntenants = ['other']\ntypes = ['Patient']\nlevels = ['group']\ngroups = ['g']\n\
                tokens = [{ id = 'tb', hash = 'HASH' }]";
    StaticClients::new(table(text), [3; 32], || Instant::parse(NOW).unwrap())
}

fn headers(given: &[(&str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| (name.parse::<header::HeaderName>().unwrap(), value.parse().unwrap());
    HeaderMap::from_iter(given.iter().map(pair))
}

fn token(token: &str) -> HeaderMap {
    headers(&[("authorization", &format!("Bearer {token}"))])
}

fn by_client(id: &str, secret: &str) -> HeaderMap {
    headers(&[("client_id", id), ("client_secret", secret)])
}

#[track_caller]
fn refused(answer: Result<Principal, Refusal>, status: u16, code: IssueType, challenge: Option<&str>) -> String {
    let refusal = answer.unwrap_err();
    assert_eq!((refusal.status.as_u16(), refusal.issues[0].code), (status, code), "{refusal:?}");
    let told = refusal.headers.iter().find(|(name, _)| *name == header::WWW_AUTHENTICATE);
    assert_eq!(told.map(|(_, value)| value.to_str().unwrap()), challenge);
    refusal.issues[0].diagnostics.clone()
}

const PLAIN: Option<&str> = Some("Bearer realm=\"outpour\"");
const INVALID: Option<&str> = Some("Bearer realm=\"outpour\", error=\"invalid_token\"");

/// ONEUP-S07, ONEUP-S01: each way by itself; a user is not its client.
#[test]
fn who_is_known_is_let_in() {
    let provider = provider();
    let client = provider.authenticate(&DOOR, &token("ta.right")).unwrap();
    assert_eq!((client.client.as_str(), &client.patient, client.levels), ("a", &None, [true; 3]));
    assert_eq!(provider.authenticate(&DOOR, &by_client("ca", "right")).unwrap(), client);
    let user = provider.authenticate(&DOOR, &token("tp.right")).unwrap();
    assert_eq!((user.client.as_str(), user.patient.as_deref()), ("a/Patient/p", Some("p")));
    assert_eq!(user.log_name(), "a", "no patient's id in the log");
    let other = Door { tenant: "other", ..DOOR };
    let narrow = provider.authenticate(&other, &token("tb.right")).unwrap();
    assert_eq!((narrow.levels, narrow.groups.unwrap()), ([false, false, true], vec!["g".to_string()]));
    assert_eq!(narrow.types.unwrap(), [ResourceType::PATIENT]);
    assert!(provider.requires_access_token());
}

/// AUTH-23: 401 with a challenge and what to do; AUTH-28: what is wrong is not told from what is unknown.
#[test]
fn the_others_hear_the_same() {
    let provider = provider();
    refused(provider.authenticate(&DOOR, &HeaderMap::new()), 401, IssueType::Login, PLAIN);
    let wrong: Vec<String> = ["ta.wrong", "tx.right", "ta", "ta.", "", "old.wrong", "tb.wrong", "ca.right"]
        .iter()
        .map(|text| refused(provider.authenticate(&DOOR, &token(text)), 401, IssueType::Login, INVALID))
        .collect();
    assert!(wrong.iter().all(|text| *text == wrong[0]), "{wrong:?}");
    let wrong: Vec<String> = [by_client("ca", "wrong"), by_client("cx", "right"), headers(&[("client_id", "ca")])]
        .iter()
        .map(|headers| refused(provider.authenticate(&DOOR, headers), 401, IssueType::Login, PLAIN))
        .collect();
    assert!(wrong.iter().all(|text| *text == wrong[0]), "{wrong:?}");
    let mut both = token("ta.right");
    both.extend(by_client("ca", "right"));
    let several = Some("Bearer realm=\"outpour\", error=\"invalid_request\"");
    refused(provider.authenticate(&DOOR, &both), 401, IssueType::Login, several);
}

/// AUTH-23, ONEUP-S08: expiry is checked on every request, also of a token that was right before; ONEUP-M01: a token of
/// another tenant.
#[test]
fn time_and_tenant() {
    let provider = provider();
    provider.authenticate(&DOOR, &token("new.right")).unwrap();
    for _ in 0..2 {
        let told = refused(provider.authenticate(&DOOR, &token("old.right")), 401, IssueType::Expired, INVALID);
        assert!(told.contains("fresh"));
    }
    let told = refused(provider.authenticate(&DOOR, &token("tb.right")), 403, IssueType::Forbidden, None);
    assert!(!told.contains("other"), "the tenants of a client are not told");
}

/// ONEUP-M09, C-14: a mount says which way it takes.
#[test]
fn a_door_takes_its_ways() {
    let provider = provider();
    let tokens = Door { client_headers: false, ..DOOR };
    let told = refused(provider.authenticate(&tokens, &by_client("ca", "right")), 401, IssueType::Login, PLAIN);
    assert!(told.contains("only way") && told.contains("Bearer"), "{told}");
    provider.authenticate(&tokens, &token("ta.right")).unwrap();
    let clients = Door { bearer: false, ..DOOR };
    let challenge = Some("ClientHeaders realm=\"outpour\"");
    refused(provider.authenticate(&clients, &token("ta.right")), 401, IssueType::Login, challenge);
    refused(provider.authenticate(&clients, &HeaderMap::new()), 401, IssueType::Login, challenge);
    provider.authenticate(&clients, &by_client("ca", "right")).unwrap();
}

/// The second request of a credential needs no hash; wrong ones need one each time, unknown ones too.
#[test]
fn what_is_quick() {
    let provider = provider();
    for quick in [&HeaderMap::new(), &headers(&[("authorization", "a"), ("client_id", "b")])] {
        assert!(provider.is_quick(quick));
    }
    let right = token("ta.right");
    assert!(!provider.is_quick(&right));
    provider.authenticate(&DOOR, &right).unwrap();
    assert!(provider.is_quick(&right));
    for slow in ["ta.wrong", "tx.right", "ta", "tp.right"] {
        provider.authenticate(&DOOR, &token(slow)).ok();
        assert_eq!(provider.is_quick(&token(slow)), slow == "tp.right", "{slow}");
    }
}

/// Clients are replaced as a whole: who is gone is not let in, however well remembered.
#[test]
fn clients_are_replaced() {
    let provider = provider();
    provider.authenticate(&DOOR, &token("ta.right")).unwrap();
    provider.replace(table("[[clients]]\nname = 'c'\ntokens = [{ id = 'tc', hash = 'HASH' }]"));
    assert!(provider.authenticate(&DOOR, &token("ta.right")).is_err() && !provider.is_quick(&token("ta.right")));
    assert_eq!(provider.authenticate(&DOOR, &token("tc.right")).unwrap().client, "c");
    let other = table("[[clients]]\nname = 'c'").clients;
    provider.replace(ClientTable { clients: other, ..table("") });
    assert!(provider.authenticate(&DOOR, &token("tc.right")).is_err(), "without clients nobody is let in");
    assert!(!format!("{:?}", provider.table()).contains("argon2"));
}
