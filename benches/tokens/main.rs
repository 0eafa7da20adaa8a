//! Token requests beside running downloads, and kick-offs beside both: what SMART Backend Services cost a service on this machine.
//!
//! `cargo bench --bench tokens [-- --seconds N] [--test]`. One service over the bundled store, with keep-alive connections. Every
//! answer is checked: each token request gets a token, each download its bytes, each kick-off its 202. Assertions are signed before
//! the clock runs. Speed of light of a token: the check of its assertion's signature and one signature of ours, measured alone.

#[path = "../../tests/it/http/smart/keys.rs"]
mod keys;
mod load;

use std::time::{Duration, Instant as Clock};

use self::keys::ClientKey;
use self::load::{Connection, Service, Spread};

/// Most requests that are signed ahead for a phase, a second of it.
const RATES: [(&str, u32); 2] = [("RS384", 1000), ("ES384", 200)];
/// Connections that ask for tokens.
const ASKERS: usize = 16;
/// Downloads at a time.
const DOWNLOADS: usize = 2;
/// Kick-offs a second.
const KICK_OFFS: u32 = 20;

/// Microseconds of a check of a client's signature, and of a signature of ours.
fn signature_times(client: &ClientKey) -> (f64, f64) {
    use base64ct::{Base64UrlUnpadded, Encoding};
    use ring::signature::{
        ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA384, RsaPublicKeyComponents, UnparsedPublicKey,
    };
    const TIMES: u32 = 200;
    let (message, jwk) = ([7; 400], client.jwk());
    let signature = client.signature(&message);
    let part = |name: &str| Base64UrlUnpadded::decode_vec(jwk[name].as_str().unwrap_or_default()).unwrap();
    let begun = Clock::now();
    for _ in 0..TIMES {
        let checked = match client.algorithm {
            "RS384" => RsaPublicKeyComponents { n: part("n"), e: part("e") }.verify(
                &RSA_PKCS1_2048_8192_SHA384,
                &message,
                &signature,
            ),
            _ => UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, [&[4][..], &part("x"), &part("y")].concat())
                .verify(&message, &signature),
        };
        checked.unwrap();
    }
    let verify = begun.elapsed();
    let ours = ClientKey::new("ES256");
    let begun = Clock::now();
    for _ in 0..TIMES {
        std::hint::black_box(ours.signature(&message));
    }
    let micros = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(TIMES);
    (micros(verify), micros(begun.elapsed()))
}

fn main() {
    let (mut seconds, mut is_test) = (10, false);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--seconds" => seconds = words.next().and_then(|word| word.parse().ok()).expect("a number"),
            "--test" => is_test = true,
            _ => {}
        }
    }
    let phase = if is_test { Duration::from_millis(300) } else { Duration::from_secs(seconds) };
    let scratch = tempfile::tempdir().unwrap();
    let clients = RATES.map(|(algorithm, _)| ClientKey::new(algorithm));
    let service = Service::start(scratch.path(), &clients);
    let token = service.token(&clients[0]);
    let file = service.export(&token);
    println!("each phase {} ms, {DOWNLOADS} downloads of {} bytes", phase.as_millis(), file.bytes);
    for client in &clients {
        let (verify, sign) = signature_times(client);
        println!("{}: check of a signature {verify:.1} µs, our ES256 {sign:.1} µs", client.algorithm);
    }
    println!(
        "{:<28} {:>10} {:>9} {:>9} {:>9} {:>11} {:>9} {:>9}",
        "", "tokens/s", "p50 ms", "p99 ms", "max ms", "downloads", "of alone", "server s"
    );
    let mut alone = None;
    for paced in [None, Some(100)] {
        for asking in [None, Some(0), Some(1)] {
            // Signed before the clock runs.
            let rate = asking.map_or(0, |client: usize| RATES[client].1);
            let count = (phase.as_secs_f64() * f64::from(rate)).ceil() as usize;
            let requests: Vec<Vec<u8>> =
                asking.iter().flat_map(|client| (0..count).map(|_| service.token_request(&clients[*client]))).collect();
            let before = service.cpu_seconds();
            let begun = Clock::now();
            let (moved, spread) = std::thread::scope(|scope| {
                let loads: Vec<_> = (0..DOWNLOADS)
                    .map(|_| scope.spawn(|| service.download_until(&token, &file, begun + phase, paced)))
                    .collect();
                let requests = &requests;
                let service = &service;
                let askers: Vec<_> = (0..if rate > 0 { ASKERS } else { 0 })
                    .map(|asker| {
                        scope.spawn(move || {
                            let mut connection = Connection::open(service.address);
                            let mut times = Vec::new();
                            for number in (asker..requests.len()).step_by(ASKERS) {
                                let due = begun + Duration::from_secs_f64(number as f64 / f64::from(rate));
                                std::thread::sleep(due.saturating_duration_since(Clock::now()));
                                let answer = connection.ask(&requests[number]);
                                assert!(
                                    answer.status == 200 && answer.body.contains("access_token"),
                                    "{}",
                                    answer.body
                                );
                                // From when it was due: an answer that is late makes the next one late.
                                times.push(due.elapsed());
                            }
                            times
                        })
                    })
                    .collect();
                let times: Vec<Duration> = askers.into_iter().flat_map(|asker| asker.join().unwrap()).collect();
                let moved: u64 = loads.into_iter().map(|load| load.join().unwrap()).sum();
                (moved, Spread::of(times))
            });
            let took = begun.elapsed().as_secs_f64();
            let cpu = service.cpu_seconds() - before;
            let rate_moved = moved as f64 / took;
            let base = *alone.get_or_insert(rate_moved);
            let name = asking
                .map_or("downloads alone".to_string(), |client| format!("{} {}/s", RATES[client].0, RATES[client].1));
            let name = paced.map_or(name.clone(), |megabytes| format!("{name}, {megabytes} MB/s each"));
            println!(
                "{name:<28} {:>10.0} {:>9.2} {:>9.2} {:>9.2} {:>8.0} MB {:>8.0}% {cpu:>9.2}",
                spread.count as f64 / took,
                spread.p50,
                spread.p99,
                spread.most,
                rate_moved / 1e6,
                100.0 * rate_moved / base,
            );
        }
        alone = None;
    }
    for asking in [false, true] {
        let count = (phase.as_secs_f64() * f64::from(KICK_OFFS)).ceil() as usize;
        let tokens = (phase.as_secs_f64() * f64::from(RATES[0].1)).ceil() as usize;
        let requests: Vec<Vec<u8>> =
            (0..if asking { tokens } else { 0 }).map(|_| service.token_request(&clients[0])).collect();
        let begun = Clock::now();
        let spread = std::thread::scope(|scope| {
            let service = &service;
            let requests = &requests;
            for asker in 0..ASKERS {
                scope.spawn(move || {
                    let mut connection = Connection::open(service.address);
                    for number in (asker..requests.len()).step_by(ASKERS) {
                        let due = begun + Duration::from_secs_f64(number as f64 / f64::from(RATES[0].1));
                        std::thread::sleep(due.saturating_duration_since(Clock::now()));
                        assert_eq!(connection.ask(&requests[number]).status, 200);
                    }
                });
            }
            Spread::of(service.kick_offs(&token, count, begun, KICK_OFFS))
        });
        let name = if asking { "kick-offs, RS384 1000/s" } else { "kick-offs alone" };
        println!("{name:<28} {:>10} {:>9.2} {:>9.2} {:>9.2}", "", spread.p50, spread.p99, spread.most);
    }
}
