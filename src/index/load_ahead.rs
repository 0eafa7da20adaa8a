//! The index meta of a store with many files, read while the store is walked: neither needs the other, but for whether links are
//! followed, which the first bytes of the index meta say.

use crate::error::IndexError;
use crate::index::dir::IndexDir;
use crate::index::load::{IndexMemory, load, load_head};
use crate::index::meta;
use crate::index::open::{OpenedIndex, Verification, open_index};
use crate::store::Store;
use crate::store::choices::links_of;
use crate::store::walk::{Walk, walk_store};
use crate::sys::regular_file::Links;

/// Least bytes of an index meta that is read while the store is walked; fewer in tests, whose stores are small.
const META_BYTES_MIN: u64 = if cfg!(test) { 1 << 10 } else { 256 << 10 };

/// What is read of an index before it is compared with its store.
pub(crate) struct LoadedAhead {
    /// As [`load`] gives it.
    pub memory: Result<IndexMemory, IndexError>,
    /// Its segments and its global index, if they were opened meanwhile.
    pub opened: Option<Result<OpenedIndex, IndexError>>,
    /// The walk of the store, if there was one meanwhile.
    pub walk: Option<WalkedAhead>,
}

/// A walk of a store that was made before it was certain by which rules.
pub(crate) struct WalkedAhead {
    links: Links,
    walk: Result<Walk, IndexError>,
}

impl WalkedAhead {
    /// The walk, if links were treated so.
    pub(crate) fn with_links(self, links: Links) -> Option<Result<Walk, IndexError>> {
        (self.links == links).then_some(self.walk)
    }
}

/// Loads the index meta of a directory, and if it is large, opens what it names, and walks the store meanwhile.
pub(crate) fn load_ahead(store: &Store, dir: &IndexDir, verification: Verification) -> LoadedAhead {
    let is_large = dir.file_len(meta::FILE).is_some_and(|len| len >= META_BYTES_MIN);
    let Some(head) = is_large.then(|| load_head(dir).ok().flatten()).flatten() else {
        return LoadedAhead { memory: load(dir), opened: None, walk: None };
    };
    let links = match store.options().remake {
        true => store.options().choices.links_of_new_index(),
        false => links_of(head.follow_symlinks),
    };
    let load = || {
        let memory = load(dir);
        let opened = match &memory {
            Ok(IndexMemory::Known(known)) if verification == Verification::Stamps => {
                Some(open_index(dir, &known.current, verification))
            }
            _ => None,
        };
        (memory, opened)
    };
    let walk = || walk_store(store, links);
    let (walk, (memory, opened)) = match rayon::current_thread_index() {
        Some(_) => rayon::join(walk, load),
        // Not a task of a pool: none is made for this.
        None => std::thread::scope(|scope| {
            let walk = scope.spawn(walk);
            let loaded = load();
            (walk.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), loaded)
        }),
    };
    LoadedAhead { memory, opened, walk: Some(WalkedAhead { links, walk }) }
}
