//! Seeded random numbers and choices: the same seed gives the same sequence on every machine. Resources and lines are
//! made from them in `generator`.

/// A SplitMix64 generator: good enough for choices, not for secrets.
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// The seed of a test: `OUTPOUR_TEST_SEED`, or else one of this run. Printed, so that a failure can be repeated.
    pub(crate) fn seed(test: &str) -> u64 {
        let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
        let seed = std::env::var("OUTPOUR_TEST_SEED").ok().map_or_else(now, |text| text.parse().unwrap());
        println!("{test}: OUTPOUR_TEST_SEED={seed}");
        seed
    }

    pub(crate) fn new(seed: u64, case: u64) -> Random {
        Random(seed ^ case.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `bound`, exclusive.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// `true` with probability 1/n.
    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// The number in an environment variable, or the default.
pub(crate) fn knob(name: &str, default: usize) -> usize {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// Runs `case` for each number below `count` on two threads, and reports the first panic with its number.
pub(crate) fn each_case(test: &str, count: usize, case: impl Fn(u64, &mut Random) + Sync) {
    let seed = Random::seed(test);
    let next = std::sync::atomic::AtomicUsize::new(0);
    let only = std::env::var("OUTPOUR_TEST_CASE").ok().map(|text| text.parse::<usize>().unwrap());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    if only.is_some_and(|only| only != number) {
                        continue;
                    }
                    let mut random = Random::new(seed, number as u64);
                    let run = std::panic::AssertUnwindSafe(|| case(number as u64, &mut random));
                    if let Err(panic) = std::panic::catch_unwind(run) {
                        eprintln!("{test}: OUTPOUR_TEST_SEED={seed} OUTPOUR_TEST_CASE={number}");
                        next.store(count, std::sync::atomic::Ordering::Relaxed);
                        std::panic::resume_unwind(panic);
                    }
                }
            });
        }
    });
}
