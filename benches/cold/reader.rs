//! Reads ranges of files at a queue depth, as fast as the device gives them, and prints seconds, bytes and requests.
//!
//! `reader DEPTH cached|direct`; on standard input a path, then its ranges (`START END` in bytes), then the next path.
//! So many threads take the next request in the order given; a range is cut into requests of at most 1 MiB. `cached` reads
//! through the page cache without read-ahead by the kernel, `direct` past it (O_DIRECT), in whole blocks of 4,096 bytes.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Most bytes of a request.
const REQUEST_BYTES: u64 = 1 << 20;
/// Unit of `direct` reads, in bytes.
const BLOCK_BYTES: u64 = 4096;
/// O_DIRECT of Linux on x86-64.
const O_DIRECT: i32 = 0o40000;
/// POSIX_FADV_RANDOM: the kernel reads what is asked for and no more.
const FADV_RANDOM: i32 = 1;

unsafe extern "C" {
    fn posix_fadvise(fd: i32, offset: i64, len: i64, advice: i32) -> i32;
}

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, depth, how] = &args[..] else { panic!("reader DEPTH cached|direct") };
    let depth: usize = depth.parse().expect("a number of threads");
    let direct = how == "direct";
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    let mut files: Vec<File> = Vec::new();
    let mut requests: Vec<(usize, u64, u64)> = Vec::new();
    for line in text.lines() {
        let numbers = line.split_once(' ').and_then(|(a, b)| Some((a.parse::<u64>().ok()?, b.parse::<u64>().ok()?)));
        let Some((mut start, end)) = numbers else {
            let file = OpenOptions::new().read(true).custom_flags(if direct { O_DIRECT } else { 0 }).open(line)?;
            // SAFETY: the descriptor is open; the call touches no memory of ours.
            unsafe { posix_fadvise(file.as_raw_fd(), 0, 0, FADV_RANDOM) };
            files.push(file);
            continue;
        };
        while start < end {
            let next = end.min(start + REQUEST_BYTES);
            requests.push((files.len() - 1, start, next - start));
            start = next;
        }
    }
    let (next, bytes) = (AtomicUsize::new(0), AtomicU64::new(0));
    let begun = std::time::Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..depth {
            scope.spawn(|| {
                let mut space = vec![0u8; (REQUEST_BYTES + 3 * BLOCK_BYTES) as usize];
                let pad = space.as_ptr().align_offset(BLOCK_BYTES as usize);
                while let Some((file, start, len)) = requests.get(next.fetch_add(1, Relaxed)) {
                    let (mut at, end) = (*start, start + len);
                    let end = if direct { end.next_multiple_of(BLOCK_BYTES) } else { end };
                    if direct {
                        at -= at % BLOCK_BYTES;
                    }
                    while at < end {
                        let got = files[*file].read_at(&mut space[pad..pad + (end - at) as usize], at).expect("a read");
                        bytes.fetch_add(got as u64, Relaxed);
                        at += got as u64;
                        // A `direct` read that ends within a block ends at the end of the file.
                        if got == 0 || direct && got as u64 % BLOCK_BYTES != 0 {
                            break;
                        }
                    }
                }
            });
        }
    });
    println!("{} {} {}", begun.elapsed().as_secs_f64(), bytes.into_inner(), requests.len());
    Ok(())
}
