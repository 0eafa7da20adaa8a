//! Requests made at random against `outpour serve`: every answer is a documented one, whatever was sent, and memory stays.
//!
//! `cargo bench --bench requests -- [--seed N] [--requests N] [--test]`. Two services over the bundled store, with every
//! mount, one of them with clients, take turns by chance. What is checked: `answers` and `service` (the log).

mod answers;
mod bodies;
mod chance;
mod generator;
mod service;

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::time::Instant as Clock;

use serde_json::Value;

use self::answers::Answer;
use self::chance::Chance;
use self::generator::Exchange;
use self::service::Service;

/// Exchanges of a whole run, and of a short one.
const WHOLE: u64 = 50_000;
const SHORT: u64 = 1_000;

/// Exchanges whose bytes are kept, since the log tells of a fault a moment later.
const KEPT: usize = 2_000;

/// Exchanges between two looks at the memory and at the log.
const LOOK_EVERY: u64 = 100;

/// The memory of the second half of a run may be so many bytes, and a quarter, above the most of the first.
const GROWTH_BYTES: u64 = 16 << 20;

/// The arguments of a run.
struct Settings {
    seed: u64,
    count: u64,
    is_test: bool,
}

impl Settings {
    /// Reads the command line; `cargo bench` adds words of its own.
    fn read() -> Settings {
        let mut settings = Settings { seed: 1, count: WHOLE, is_test: false };
        let mut count = None;
        let mut words = std::env::args().skip(1);
        let number = |word: Option<String>| word.and_then(|word| word.parse().ok()).expect("a number");
        while let Some(word) = words.next() {
            match word.as_str() {
                "--seed" => settings.seed = number(words.next()),
                "--requests" => count = Some(number(words.next())),
                "--test" => settings.is_test = true,
                _ => {}
            }
        }
        settings.count = count.unwrap_or(if settings.is_test { SHORT } else { WHOLE });
        settings
    }
}

/// The exchanges of a run, which ends at the first fault.
struct Run {
    settings: Settings,
    services: Vec<Service>,
    sent: VecDeque<(u64, Vec<u8>)>,
    /// Deletions that are due, by service.
    due: VecDeque<(usize, String)>,
    statuses: BTreeMap<u16, u64>,
    unanswered: u64,
}

fn main() {
    let settings = Settings::read();
    let scratch = tempfile::tempdir().unwrap();
    let services = vec![Service::start(scratch.path(), "open", false), Service::start(scratch.path(), "clients", true)];
    let mut run = Run {
        settings,
        services,
        sent: VecDeque::new(),
        due: VecDeque::new(),
        statuses: BTreeMap::new(),
        unanswered: 0,
    };
    println!("requests: seed {}, {} exchanges", run.settings.seed, run.settings.count);
    run.send_all();
    run.finish(scratch.path());
}

impl Run {
    /// Sends every exchange, looks at memory and log between them, and prints the figures.
    fn send_all(&mut self) {
        let mut chance = Chance::new(self.settings.seed);
        let (count, begun) = (self.settings.count, Clock::now());
        let mut memory: Vec<Vec<u64>> = vec![Vec::new(); self.services.len()];
        for number in 0..count {
            let (at, exchange) = match self.due.pop_front() {
                Some((at, path)) => {
                    let credential = self.services[at].credentials.first().cloned().unwrap_or_default();
                    (at, generator::deletion(&path, &credential, number))
                }
                None => {
                    let at = chance.below(self.services.len());
                    (at, generator::exchange(&mut chance, &self.services[at], number))
                }
            };
            self.send(number, at, &exchange);
            if number % LOOK_EVERY == LOOK_EVERY - 1 {
                self.look_at_logs();
                // The first tenth warms up.
                for (at, service) in self.services.iter().enumerate().filter(|_| number >= count / 10) {
                    memory[at].push(service.memory());
                }
            }
        }
        let seconds = begun.elapsed().as_secs_f64();
        self.services.iter().for_each(Service::wait_for_log);
        self.look_at_logs();
        println!("{:.0} exchanges a second; {} without an answer", count as f64 / seconds, self.unanswered);
        let by_status: Vec<String> = self.statuses.iter().map(|(status, count)| format!("{status} {count}")).collect();
        println!("answers: {}", by_status.join(", "));
        for (at, values) in memory.iter().enumerate() {
            let (first, second) = values.split_at(values.len() / 2);
            let most = |part: &[u64]| part.iter().copied().max().unwrap_or(0);
            let (first, second) = (most(first), most(second));
            println!(
                "RssAnon of service {at}: {} MiB at most in the first half, {} in the second",
                first >> 20,
                second >> 20
            );
            if second > first + first / 4 + GROWTH_BYTES {
                self.fail(None, &format!("memory grows: {first} bytes, then {second}"));
            }
        }
    }

    /// Sends one exchange and checks what comes back.
    fn send(&mut self, number: u64, at: usize, exchange: &Exchange) {
        self.sent.push_back((number, exchange.bytes.clone()));
        if self.sent.len() > KEPT {
            self.sent.pop_front();
        }
        let received = match answers::send(&self.services[at], exchange) {
            Ok(Some(received)) => received,
            Ok(None) => return self.unanswered += 1,
            Err(fault) => self.fail(Some(number), &fault),
        };
        let found = match answers::parse(&received, &exchange.methods) {
            Ok(found) => found,
            Err(fault) => self.fail(Some(number), &fault),
        };
        if found.len() < exchange.answers_least {
            self.fail(Some(number), &format!("{} answers of {}", found.len(), exchange.answers_least));
        }
        self.unanswered += u64::from(found.is_empty());
        for (place, answer) in found.iter().enumerate() {
            *self.statuses.entry(answer.status).or_default() += 1;
            let method = exchange.methods.get(place).map(String::as_str);
            if let Err(fault) = answers::check(answer, &self.services[at], method) {
                self.fail(Some(number), &fault);
            }
            self.learn(at, answer);
        }
    }

    /// Takes what later requests can ask for from an answer: jobs, files, Groups, entity tags.
    fn learn(&mut self, at: usize, answer: &Answer) {
        let root = format!("http://{}", self.services[at].address);
        let path = |url: &str| url.strip_prefix(&root).map(str::to_string);
        let known = &mut self.services[at].known;
        if let Some(tag) = answer.header("etag") {
            known.tags.add(tag.to_string());
        }
        if let Some(job) = answer.header("content-location").and_then(path) {
            // 1upHealth's mounts know no deletion; their jobs expire.
            let old = known.jobs.add(job).filter(|old| !old.contains("/job/"));
            self.due.extend(old.map(|old| (at, old)));
        }
        if let (201, Some(group)) = (answer.status, answer.header("location").and_then(path)) {
            let id = group.split("/Group/").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default();
            let old = known.groups.add(id.to_string());
            self.due.extend(old.map(|old| (at, format!("/fhir/Group/{old}"))));
        }
        if let (200, Some(Value::Object(body))) = (answer.status, answer.json()) {
            let lists = ["output", "error", "deleted"].iter().filter_map(|name| body.get(*name)?.as_array());
            for item in lists.flatten() {
                let url = item.get("url").or(item.get("file")).and_then(Value::as_str);
                if let Some(file) = url.and_then(path) {
                    known.files.add(file);
                }
            }
        }
    }

    fn look_at_logs(&self) {
        for service in &self.services {
            if let Some((number, fault)) = service.log_fault() {
                self.fail(number, &fault);
            }
        }
    }

    /// Ends the run with a fault: the seed, the number of the exchange and its bytes.
    fn fail(&self, number: Option<u64>, fault: &str) -> ! {
        eprintln!("seed {}: {fault}", self.settings.seed);
        if let Some((number, bytes)) = self.sent.iter().find(|(sent, _)| Some(*sent) == number) {
            let text = bytes[..bytes.len().min(20_000)].escape_ascii();
            eprintln!("exchange {number}, {} bytes: {text}", bytes.len());
        }
        std::process::exit(1);
    }

    /// Checks that the services still answer and stop as they should, and prints the answers by operation.
    fn finish(mut self, scratch: &Path) {
        let mut by_operation: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut counts: BTreeMap<(String, u64), u64> = BTreeMap::new();
        for service in &self.services {
            if answers::status_of(service, "/health/live") != Some(200) {
                self.fail(None, "/health/live is not answered 200 at the end");
            }
            service.logged_answers().into_iter().for_each(|(key, count)| *counts.entry(key).or_default() += count);
        }
        for ((operation, status), count) in counts {
            by_operation.entry(operation).or_default().push(format!("{status} {count}"));
        }
        if !self.settings.is_test {
            by_operation.iter().for_each(|(operation, answers)| println!("{operation:20} {}", answers.join(", ")));
        }
        for service in std::mem::take(&mut self.services) {
            let code = service.stop();
            if code != Some(0) {
                self.fail(None, &format!("a service ends with {code:?}"));
            }
        }
        assert!(scratch.exists());
    }
}
