//! Jobs: exports that outlive whoever asked for them. States and their transitions, records on the disk, the queue
//! that gives clients their turns, expiry and the reaper. Nothing here knows HTTP, a clock or an async runtime.
