//! A service whose clock was set back behind the last transactionTime of its store.

use std::time::{Duration, SystemTime};

use outpour::{Instant, Store};

use super::job_lifecycle::{accepted, ended};
use super::server::Server;
use crate::run::scratch;

/// CONS-06, SINCE-03: the operator is told; T goes on, and who sends it back as `_since` is not refused; `Expires` lies
/// behind it.
#[test]
fn a_clock_set_back_is_told_and_breaks_nothing() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    crate::fixture::plain_store(&store, &["Patient"], 1);
    // The clock was two hours ahead when this snapshot was taken.
    let ahead = Instant::from(SystemTime::now() + Duration::from_secs(7200));
    let last = Store::open(&store).unwrap().snapshot(ahead).unwrap().as_of().clone();
    let server = Server::start(scratch.path(), &["--store", "store", "--data", "data"]);
    let client = server.client();
    let ready = (0..1000)
        .find_map(|_| {
            std::thread::sleep(Duration::from_millis(20));
            let ready = client.get("/health/ready");
            (ready.status == 200).then(|| ready.json())
        })
        .expect("the service becomes ready");
    let behind = ready["clockBehindSeconds"].as_u64().unwrap();
    assert!((6000..=7200).contains(&behind), "{ready}");
    assert!(ready["clock"].as_str().unwrap().contains("set back"), "{ready}");
    assert!(server.log().contains("was it set back?"), "{}", server.log());
    // Later than the last T is the future, also under the clock that is behind.
    let later = Instant::from(SystemTime::now() + Duration::from_secs(8000));
    assert_eq!(server.fhir(&format!("$export?_since={later}")).status, 400);
    let mut since = last;
    for _ in 0..3 {
        let status = accepted(&client, &server.fhir(&format!("$export?_since={since}")));
        let done = ended(&client, &status);
        assert_eq!(done.status, 200, "{}", done.text());
        let t: Instant = done.json()["transactionTime"].as_str().unwrap().parse().unwrap();
        assert!(t > since, "{t} after {since}");
        assert!(done.header("expires").is_some());
        since = t;
    }
}
