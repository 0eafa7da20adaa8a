//! `outpour serve`

use std::io::{IsTerminal, Write};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tracing_subscriber::filter::LevelFilter;

use crate::cli::args::{AccessArg, ServeArgs, StoreArgs};
use crate::cli::config::open_store;
use crate::cli::{Exit, say};
use crate::error::RequestError;
use crate::limits::CONFIG_BYTES_MAX;
use crate::server::config::{Config, LogFormat};
use crate::server::serve::{ServeInfo, serve};
use crate::sys::interrupt::interrupts;
use crate::sys::regular_file::read_argument;

/// How often is looked whether the process is asked to stop.
const LOOK: Duration = Duration::from_millis(20);

/// Runs the command.
pub(crate) fn run(args: ServeArgs) -> Exit {
    let config = match configuration(&args) {
        Ok(config) => config,
        Err(error) => {
            say(&format!("error: {error}"));
            return Exit::BadRequest;
        }
    };
    if args.print_config {
        let written = std::io::stdout().write_all(config.to_toml().as_bytes());
        return if written.is_ok() { Exit::Done } else { Exit::Failed };
    }
    let mut stores = Vec::new();
    for tenant in config.all_tenants() {
        let store = StoreArgs {
            store: tenant.store.path,
            index_dir: Some(tenant.store.index_dir).filter(|path| !path.as_os_str().is_empty()),
            access: AccessArg::Mapped,
            kernel: None,
        };
        match open_store(&store, None, tenant.data.sync) {
            Ok(store) => stores.push(store),
            Err(error) => {
                say(&format!("error: {error}"));
                return Exit::BadRequest;
            }
        }
    }
    log(&config);
    let stops = interrupts();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            say(&format!("error: cannot start threads: {error}"));
            return Exit::Failed;
        }
    };
    let stop = async {
        while !stops.load(Relaxed) {
            tokio::time::sleep(LOOK).await;
        }
        tracing::info!("stopping: answers in flight may end, jobs are parked");
    };
    match runtime.block_on(serve(config, stores, told, stop)) {
        Ok(()) => Exit::Done,
        Err(error) => {
            say(&format!("error: {error}"));
            Exit::Failed
        }
    }
}

/// The configuration in force: the file's, with what the command line says in its place.
fn configuration(args: &ServeArgs) -> Result<Config, RequestError> {
    let mut config = match &args.config {
        None => Config::default(),
        Some(path) => {
            let unreadable =
                |why: String| RequestError::one(format!("--config: {} cannot be read: {why}", path.display()));
            let text = read_argument(path, CONFIG_BYTES_MAX).map_err(|error| unreadable(error.to_string()))?;
            let text = String::from_utf8(text).map_err(|_| unreadable("it is no UTF-8".to_string()))?;
            Config::parse(&text).map_err(|error| RequestError::one(format!("--config: {}: {error}", path.display())))?
        }
    };
    // What came through a pipe is not there to be read again: its clients stay as they are.
    config.file = args.config.clone().filter(|path| path.is_file());
    if let Some(listen) = args.listen {
        config.listen = listen;
    }
    for (given, place) in [
        (&args.store, &mut config.store.path),
        (&args.index_dir, &mut config.store.index_dir),
        (&args.data, &mut config.data.path),
        (&args.jobs, &mut config.data.jobs),
    ] {
        if let Some(given) = given {
            place.clone_from(given);
        }
    }
    let mut problems = config.config_problems();
    let tenants = config.all_tenants();
    for store in tenants.iter().map(|tenant| &tenant.store.path).filter(|path| !path.as_os_str().is_empty()) {
        for tenant in &tenants {
            for (name, path) in [("--data", &tenant.data.path), ("--jobs", &tenant.data.jobs)] {
                if !path.as_os_str().is_empty()
                    && let Err(inside) = crate::store::paths::check_outside_store(store, path)
                {
                    problems.extend(inside.problems.iter().map(|problem| format!("{name}: {}", problem.text)));
                }
            }
        }
    }
    if problems.is_empty() {
        Ok(config)
    } else {
        Err(RequestError { problems: problems.into_iter().map(Into::into).collect() })
    }
}

fn log(config: &Config) {
    let level = config.log.level.parse().unwrap_or(LevelFilter::INFO);
    let builder = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr);
    // A service that is started twice in one process logs where the first one did.
    match config.log.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init().ok(),
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init().ok(),
    };
}

fn told(served: &ServeInfo) {
    let scheme = if served.tls { "https" } else { "http" };
    say(&format!("outpour serves on {scheme}://{}; stop it with Ctrl-C", served.listen));
    for base in &served.bases {
        say(&format!("  {base}/metadata says what can be asked"));
    }
}
