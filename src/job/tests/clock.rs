//! The transactionTimes of jobs under a clock that stands still, is set back, or ran ahead.

use std::collections::BTreeSet;

use super::*;
use crate::index::snapshot_time::SnapshotTime;

fn instant(text: &str) -> Instant {
    Instant::parse(text).unwrap()
}

/// CONS-06: under a clock that stands still no T is given out twice, by however many callers; an export of another
/// process from the same store counts.
#[test]
fn no_t_is_given_out_twice() {
    let world = World::new(20);
    let engine = world.open(JobLimits { active_per_client: 100, active: 100, ..JobLimits::default() });
    let other = Store::open(world.path("store")).unwrap();
    let mut given: Vec<Instant> = Vec::new();
    for _ in 0..4 {
        let kick = || engine.kick_off(world.kick_off(&engine, "a", RecordedPopulation::System)).unwrap();
        let kicked: Vec<Instant> = std::thread::scope(|threads| {
            let callers: Vec<_> = (0..6).map(|_| threads.spawn(|| kick().transaction_time)).collect();
            callers.into_iter().map(|caller| caller.join().unwrap()).collect()
        });
        given.extend(kicked);
        wait("the end of all jobs", || (engine.active() == 0).then_some(()));
        given.push(other.snapshot(SnapshotTime::by_clock(instant(START))).unwrap().as_of().clone());
    }
    let distinct: BTreeSet<&Instant> = given.iter().collect();
    assert_eq!(distinct.len(), given.len(), "{given:?}");
    // By the millisecond.
    assert_eq!(given.iter().max(), Some(&instant("2024-01-01T00:00:00.027Z")));
}

/// A clock that is set back: T goes on from the last one, and so do expiry and end; the operator is told until the clock
/// has caught up; the same after a restart.
#[test]
fn a_clock_set_back_breaks_nothing() {
    let world = World::new(20);
    let mut engine = world.open(JobLimits::default());
    let kick = |engine: &JobEngine| engine.kick_off(world.kick_off(engine, "a", RecordedPopulation::System)).unwrap();
    let first = kick(&engine);
    ended(&engine, &first.id, "a");
    assert_eq!(engine.clock_behind(), None);
    world.tick(-7200);
    for restart in [false, true] {
        if restart {
            drop(engine);
            engine = world.open(JobLimits::default());
        }
        assert_eq!(engine.clock_behind(), Some(7200));
        assert_eq!(engine.last_transaction_time().as_ref().map(|last| last >= &first.transaction_time), Some(true));
        assert!(engine.snapshot_moment() >= first.transaction_time);
        let second = kick(&engine);
        assert!(second.transaction_time > first.transaction_time);
        let record = ended(&engine, &second.id, "a");
        let kept = instant(record.expires.as_deref().unwrap()).ticks - second.transaction_time.ticks;
        assert_eq!((record.state, kept), (JobState::Complete, 3600 * TICKS_PER_SECOND));
        assert!(instant(record.ended.as_deref().unwrap()) >= second.transaction_time);
        // Nothing expires before its time by the clock.
        engine.reap();
        assert!(matches!(engine.find(&first.id, "ig", "a"), JobLookup::Job(_)));
    }
    world.tick(7200 + 1);
    assert_eq!(engine.clock_behind(), None);
    assert_eq!(kick(&engine).transaction_time, instant("2024-01-01T00:00:01Z"));
}

/// A `_since` that a client's clock, some seconds ahead, has made is taken as T: nothing has changed after it yet.
#[test]
fn a_since_ahead_of_the_clock_is_taken_as_now() {
    let world = World::new(20);
    let engine = world.open(JobLimits::default());
    let mut kick_off = world.kick_off(&engine, "a", RecordedPopulation::System);
    kick_off.request.since = Some("2024-01-01T00:00:30Z".to_string());
    let accepted = engine.kick_off(kick_off).unwrap();
    let record = ended(&engine, &accepted.id, "a");
    assert_eq!((record.state, record.request.since.as_deref()), (JobState::Complete, Some("2024-01-01T00:00:00.000Z")));
}

/// A record may hold any instant: the T's after it stay within the calendar, and no job is lost by it.
#[test]
fn a_record_of_the_far_future_expires_nothing() {
    let world = World::new(20);
    let (far, near) = {
        let engine = world.open(JobLimits::default());
        let kick = || engine.kick_off(world.kick_off(&engine, "a", RecordedPopulation::System)).unwrap().id;
        let ids = (kick(), kick());
        ended(&engine, &ids.0, "a");
        ended(&engine, &ids.1, "a");
        ids
    };
    let place = world.path("data/jobs").join(format!("{far}.json"));
    let text = std::fs::read_to_string(&place).unwrap();
    // Without a checksum, as earlier versions wrote it.
    let text = text.rsplit_once(r#","sum""#).unwrap().0.to_string() + "}";
    let t = r#""transactionTime":"2024-01-01T00:00:00.000Z""#;
    assert!(text.contains(t));
    std::fs::write(&place, text.replace(t, r#""transactionTime":"9999-12-31T23:59:59.999Z""#)).unwrap();
    let engine = world.open(JobLimits::default());
    engine.reap();
    assert!(matches!(engine.find(&near, "ig", "a"), JobLookup::Job(_)));
    let next = engine.kick_off(world.kick_off(&engine, "a", RecordedPopulation::System)).unwrap();
    assert_eq!(next.transaction_time, instant("9999-12-31T23:59:59.999Z"));
    assert_eq!(ended(&engine, &next.id, "a").state, JobState::Complete);
}
