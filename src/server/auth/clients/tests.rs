//! Tests of authentication: which requests are accepted, and the answers to the others.

use std::task::{Context, Poll, Waker};

use super::*;
use crate::issue::IssueCode;
use crate::limits::ARGON2_QUEUE_MAX;
use crate::server::auth::argon2_pool::hash_as_before;
use crate::server::auth::secret::hash;
use crate::server::config::Config;

const DOOR: MountAuth<'static> =
    MountAuth { tenant: Some("default"), names_tenant: false, bearer: true, client_headers: true };
const NOW: &str = "2026-06-01T00:00:00Z";

fn table(text: &str) -> ClientTable {
    let (right, before) = (hash("right").0, hash_as_before("right", &[1; 16]).0);
    let config = Config::parse(&text.replace("HASH", &right).replace("BEFORE", &before)).unwrap();
    ClientTable::new(&config.auth, &config.smart, &config.clients).unwrap()
}

fn provider() -> StaticClients {
    let text = "[[clients]]\nname = 'a'\ntokens = [{ id = 'ta', hash = 'HASH' }, { id = 'tp', hash = 'HASH', patient = 'p' },\n\
                { id = 'old', hash = 'HASH', expires = '2026-06-01T00:00:00Z' }, { id = 'new', hash = 'HASH', expires = '2026-06-01T00:00:01Z' }]\n\
                client_id = 'ca'\nclient_secret_hash = 'HASH'\n\
                [[clients]]\nname = 'b'\ntenants = ['other']\ntypes = ['Patient']\nlevels = ['group']\ngroups = ['g']\n\
                tokens = [{ id = 'tb', hash = 'HASH' }]";
    provider_of(text)
}

fn provider_of(text: &str) -> StaticClients {
    StaticClients::new(table(text), [3; 32], || Instant::parse(NOW).unwrap())
}

type Answer = Result<Principal, ApiError>;

/// The answer, if it does not wait for a thread.
fn at_once(provider: &StaticClients, door: MountAuth<'_>, headers: &HeaderMap) -> Option<Answer> {
    match provider.authenticate(door, headers, None).as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

/// The answer where all clients have SHA-256 hashes: it never waits.
#[track_caller]
fn ask(provider: &StaticClients, door: MountAuth<'_>, headers: &HeaderMap) -> Answer {
    at_once(provider, door, headers).expect("no slow hash")
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
fn refused(answer: Answer, status: u16, code: IssueCode, challenge: Option<&str>) -> String {
    let refusal = answer.unwrap_err();
    assert_eq!((refusal.status.as_u16(), refusal.issues[0].code), (status, code), "{refusal:?}");
    let reported = refusal.headers.iter().find(|(name, _)| *name == header::WWW_AUTHENTICATE);
    assert_eq!(reported.map(|(_, value)| value.to_str().unwrap()), challenge);
    refusal.issues[0].diagnostics.clone()
}

const PLAIN: Option<&str> = Some("Bearer realm=\"outpour\"");
const INVALID: Option<&str> = Some("Bearer realm=\"outpour\", error=\"invalid_token\"");

/// ONEUP-S07, ONEUP-S01: each kind of credential by itself; a user is not its client.
#[test]
fn who_is_known_is_let_in() {
    let provider = provider();
    let client = ask(&provider, DOOR, &token("ta.right")).unwrap();
    assert_eq!((client.client.as_str(), &client.patient, client.levels), ("a", &None, [true; 3]));
    assert_eq!(ask(&provider, DOOR, &by_client("ca", "right")).unwrap(), client);
    let user = ask(&provider, DOOR, &token("tp.right")).unwrap();
    assert_eq!((user.client.as_str(), user.patient.as_deref()), ("a/Patient/p", Some("p")));
    assert_eq!(user.log_name(), "a", "no patient's id in the log");
    let other = MountAuth { tenant: Some("other"), ..DOOR };
    let narrow = ask(&provider, other, &token("tb.right")).unwrap();
    assert_eq!((narrow.levels, narrow.groups.unwrap()), ([false, false, true], vec!["g".to_string()]));
    assert_eq!(narrow.types.unwrap(), [ResourceType::PATIENT]);
    assert!(provider.requires_access_token());
}

/// AUTH-23: 401 with a challenge and advice. AUTH-28: a wrong secret and an unknown id get the same answer.
#[test]
fn the_others_hear_the_same() {
    let provider = provider();
    refused(ask(&provider, DOOR, &HeaderMap::new()), 401, IssueCode::Login, PLAIN);
    let wrong: Vec<String> = ["ta.wrong", "tx.right", "ta", "ta.", "", "old.wrong", "tb.wrong", "ca.right"]
        .iter()
        .map(|text| refused(ask(&provider, DOOR, &token(text)), 401, IssueCode::Login, INVALID))
        .collect();
    assert!(wrong.iter().all(|text| *text == wrong[0]), "{wrong:?}");
    let wrong: Vec<String> = [by_client("ca", "wrong"), by_client("cx", "right"), headers(&[("client_id", "ca")])]
        .iter()
        .map(|headers| refused(ask(&provider, DOOR, headers), 401, IssueCode::Login, PLAIN))
        .collect();
    assert!(wrong.iter().all(|text| *text == wrong[0]), "{wrong:?}");
    let mut both = token("ta.right");
    both.extend(by_client("ca", "right"));
    let several = Some("Bearer realm=\"outpour\", error=\"invalid_request\"");
    refused(ask(&provider, DOOR, &both), 401, IssueCode::Login, several);
}

/// AUTH-23, ONEUP-S08: expiry is checked on every request, also of a remembered token. ONEUP-M01: a token of another
/// tenant is refused.
#[test]
fn time_and_tenant() {
    let provider = provider();
    ask(&provider, DOOR, &token("new.right")).unwrap();
    for _ in 0..2 {
        let report = refused(ask(&provider, DOOR, &token("old.right")), 401, IssueCode::Expired, INVALID);
        assert!(report.contains("fresh"));
    }
    let reported = refused(ask(&provider, DOOR, &token("tb.right")), 403, IssueCode::Forbidden, None);
    assert!(!reported.contains("other"), "the tenants of a client are not told");
}

/// ONEUP-M09, C-14: a refusal names the kinds of credentials that the mount accepts.
#[test]
fn a_door_takes_its_ways() {
    let provider = provider();
    let tokens = MountAuth { client_headers: false, ..DOOR };
    let reported = refused(ask(&provider, tokens, &by_client("ca", "right")), 401, IssueCode::Login, PLAIN);
    assert!(reported.contains("only way") && reported.contains("Bearer"), "{reported}");
    ask(&provider, tokens, &token("ta.right")).unwrap();
    let clients = MountAuth { bearer: false, ..DOOR };
    let challenge = Some("ClientHeaders realm=\"outpour\"");
    refused(ask(&provider, clients, &token("ta.right")), 401, IssueCode::Login, challenge);
    refused(ask(&provider, clients, &HeaderMap::new()), 401, IssueCode::Login, challenge);
    ask(&provider, clients, &by_client("ca", "right")).unwrap();
}

/// A configuration with argon2id hashes, for tokens only.
const BEFORE: &str = "[[clients]]\nname = 'a'\nclient_id = 'ca'\nclient_secret_hash = 'HASH'\n\
                      tokens = [{ id = 'ta', hash = 'HASH' }, { id = 'tb', hash = 'BEFORE' }, { id = 'tc', hash = 'BEFORE' },\n\
                      { id = 'old', hash = 'BEFORE', expires = '2026-06-01T00:00:00Z' }]";

/// AUTH-28: argon2id hashes are still accepted, at once the second time. Every wrong token waits for one argon2id
/// check, so that the time discloses nothing; a token that is right by SHA-256 never waits.
#[tokio::test]
async fn hashes_of_before() {
    let provider = provider_of(BEFORE);
    assert_eq!(provider.client_table().argon2_count(), 3);
    let answer = async |headers: HeaderMap| provider.authenticate(DOOR, &headers, None).await;
    assert!(at_once(&provider, DOOR, &token("tb.right")).is_none());
    assert_eq!(answer(token("tb.right")).await.unwrap().client, "a");
    assert_eq!(ask(&provider, DOOR, &token("tb.right")).unwrap().client, "a");
    assert!(at_once(&provider, DOOR, &token("tc.right")).is_some(), "the same hash is proven");
    let mut reported = Vec::new();
    for wrong in ["tb.wrong", "tx.wrong", "ta.wrong", "old.wrong"] {
        assert!(at_once(&provider, DOOR, &token(wrong)).is_none(), "{wrong}");
        reported.push(refused(answer(token(wrong)).await, 401, IssueCode::Login, INVALID));
    }
    assert!(reported.iter().all(|text| *text == reported[0]), "{reported:?}");
    refused(answer(token("tx.right")).await, 401, IssueCode::Login, INVALID);
    refused(answer(token("old.right")).await, 401, IssueCode::Expired, INVALID);
    for quick in [token("ta.right"), by_client("ca", "right")] {
        ask(&provider, DOOR, &quick).unwrap();
    }
    // No client headers have an argon2id hash.
    for quick in [by_client("ca", "wrong"), by_client("cx", "right"), token("ta"), HeaderMap::new()] {
        assert!(ask(&provider, DOOR, &quick).is_err());
    }
}

/// AUTH-28, CORE-08: many wrong tokens fill the queue of argon2id checks; only these are answered 503.
#[tokio::test]
async fn a_flood_of_wrong_tokens() {
    let provider = provider_of(BEFORE);
    provider.authenticate(DOOR, &token("tc.right"), None).await.unwrap();
    let headers: Vec<HeaderMap> = (0..4 * ARGON2_QUEUE_MAX).map(|n| token(&format!("t{n}.wrong"))).collect();
    let mut flood: Vec<_> = headers.iter().map(|headers| provider.authenticate(DOOR, headers, None)).collect();
    let mut context = Context::from_waker(Waker::noop());
    let refusals: Vec<ApiError> = flood
        .iter_mut()
        .filter_map(|asking| match asking.as_mut().poll(&mut context) {
            Poll::Ready(answer) => Some(answer.unwrap_err()),
            Poll::Pending => None,
        })
        .collect();
    // Some were checked meanwhile, two at a time, in tens of milliseconds each.
    assert!(refusals.len() > ARGON2_QUEUE_MAX, "{}", refusals.len());
    for refusal in refusals {
        assert_eq!((refusal.status.as_u16(), refusal.issues[0].code), (503, IssueCode::Throttled), "{refusal:?}");
        assert!(refusal.headers.iter().any(|(name, _)| *name == header::RETRY_AFTER));
    }
    for right in [token("ta.right"), token("tc.right"), by_client("ca", "right")] {
        ask(&provider, DOOR, &right).unwrap();
    }
    // Clients that close their connections make room.
    drop(flood);
    provider.authenticate(DOOR, &token("tb.right"), None).await.unwrap();
}

/// An unknown credential is checked against a hash of the same kind, the same one each time.
#[test]
fn decoys() {
    let table = table(BEFORE);
    let decoy = |id: &str| table.tokens.decoy_hash(id).map(Arc::as_ptr).unwrap();
    let chosen: Vec<_> = (0..64).map(|n| decoy(&format!("t{n}"))).collect();
    assert!((0..64).all(|n| decoy(&format!("t{n}")) == chosen[n]));
    assert!(table.tokens.argon2.iter().all(|hash| chosen.contains(&Arc::as_ptr(hash))), "each of them");
    assert!(table.secrets.decoy_hash("cx").is_none());
}

/// Clients are replaced as a whole: a removed client is refused, although its secret is remembered.
#[test]
fn clients_are_replaced() {
    let provider = provider();
    ask(&provider, DOOR, &token("ta.right")).unwrap();
    provider.replace(table("[[clients]]\nname = 'c'\ntokens = [{ id = 'tc', hash = 'HASH' }]"));
    assert!(ask(&provider, DOOR, &token("ta.right")).is_err());
    assert_eq!(ask(&provider, DOOR, &token("tc.right")).unwrap().client, "c");
    let other = table("[[clients]]\nname = 'c'").clients;
    provider.replace(ClientTable { clients: other, ..table("") });
    assert!(ask(&provider, DOOR, &token("tc.right")).is_err(), "without clients nobody is let in");
    assert!(!format!("{:?}", provider.client_table()).contains("sha256$"));
}
