//! Polls of a job's status: where a client is told to poll next.

use super::vendors::{IG, MTE_DEFAULT, NETSMART, STE, World, ended};

/// STATUS-19, KICK-08: on every mount a poll that is answered 202 names its own URL, the one of the kick-off, whatever
/// form of it was asked for; other answers do not.
#[test]
fn polls_name_their_url() {
    let world = World::new("");
    let (client, who) = (world.client(), &world.full);
    // Holding the lock of the index keeps every job waiting.
    let held = std::fs::File::create(world.scratch.path().join("store/.outpour/lock")).unwrap();
    held.lock().unwrap();
    std::fs::write(world.scratch.path().join("store/new.ndjson"), "{\"resourceType\":\"Basic\",\"id\":\"b\"}\n")
        .unwrap();
    let mut jobs = Vec::new();
    for base in [IG, NETSMART, STE, MTE_DEFAULT] {
        let headers = [("Accept", "application/fhir+json"), ("Prefer", "respond-async")];
        let kicked = who.ask(&client, "GET", &format!("{base}/Group/example-group/$export"), &headers);
        assert_eq!(kicked.status, 202, "{}", kicked.text());
        let url = kicked.header("content-location").unwrap().to_string();
        let status = client.path(&url).to_string();
        let mut forms = vec![status.clone(), format!("/{status}")];
        if base == NETSMART {
            forms.push(status.replace("?_id=", "/"));
            forms.push(status.replace("?_id=", "/?x=1&_id="));
        }
        for form in forms {
            for method in ["GET", "HEAD"] {
                let poll = who.ask(&client, method, &form, &[]);
                assert_eq!((poll.status, poll.header("content-location")), (202, Some(&*url)), "{method} {form}");
                assert!(poll.header("retry-after").is_some() && poll.header("x-progress").is_some());
            }
        }
        for stranger in [&world.rival, &world.narrow] {
            let answer = stranger.get(&client, &status);
            assert_eq!((answer.status, answer.header("content-location")), (404, None), "{status}");
        }
        jobs.push(status);
    }
    let deleted = who.ask(&client, "DELETE", &jobs[0], &[]);
    assert_eq!((deleted.status, deleted.header("content-location")), (202, None), "no poll");
    drop(held);
    for status in &jobs[1..] {
        let done = ended(&client, who, status);
        assert_eq!((done.status, done.header("content-location")), (200, None), "{status}");
    }
}

/// STATUS-19, CLIENT-12: the first poll of a job of the IG's mount, which is always answered 202, names its URL, too.
#[test]
fn the_first_poll_names_its_url() {
    let world = World::new("");
    let (client, who) = (world.client(), &world.full);
    let target = format!("{IG}/Group/example-group/$export");
    let headers = [("Accept", "application/fhir+json"), ("Prefer", "respond-async")];
    let kicked = who.ask(&client, "GET", &target, &headers);
    let status = client.path(kicked.header("content-location").unwrap()).to_string();
    std::thread::sleep(std::time::Duration::from_secs(1));
    let first = who.get(&client, &status);
    assert_eq!((first.status, first.header("content-location")), (202, kicked.header("content-location")));
    assert_eq!(ended(&client, who, &status).header("content-location"), None);
}
