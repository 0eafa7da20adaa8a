//! `outpour serve`: reads the configuration, opens the stores, sets up logging and runs the service until it is
//! stopped.

use std::io::{IsTerminal, Write};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tracing_subscriber::filter::LevelFilter;

use crate::cli::args::ServeArgs;
use crate::cli::args::choices::ChoiceArgs;
use crate::cli::args::run::AllowMissingArgs;
use crate::cli::args::store::{AccessArg, StoreArgs};
use crate::cli::config::open_store;
use crate::cli::{Exit, Verbosity, fail, log_line, tell, verbosity};
use crate::error::RequestError;
use crate::index::search::maintenance::read_names;
use crate::limits::CONFIG_BYTES_MAX;
use crate::server::config::{Config, LogFormat};
use crate::server::serve::{ServeInfo, serve};
use crate::store::SearchColumnOptions;
use crate::store::choices::RowChoices;
use crate::sys::interrupt::interrupts;
use crate::sys::regular_file::read_argument;

/// Interval of polling for an interrupt.
const STOP_POLL: Duration = Duration::from_millis(20);

/// Runs `outpour serve` and returns its exit code.
pub(crate) fn run(args: ServeArgs) -> Exit {
    // Until the file is read, nobody knows which form the log has.
    let config = match configuration(&args) {
        Ok(config) => config,
        Err(error) => {
            return fail(Exit::BadRequest, &error, false);
        }
    };
    let log_format = config.log.format;
    init_logging(&config);
    if let Err(error) = check_configuration(&config) {
        report_error(log_format, &error.to_string());
        return Exit::BadRequest;
    }
    if args.print_config {
        let written = std::io::stdout().write_all(config.to_toml().as_bytes());
        return if written.is_ok() { Exit::Done } else { Exit::Failed };
    }
    let mut stores = Vec::new();
    for tenant in config.all_tenants() {
        let store = StoreArgs {
            store: tenant.store.path,
            index_dir: Some(tenant.store.index_dir).filter(|path| !path.as_os_str().is_empty()),
            choices: ChoiceArgs::default(),
            missing: AllowMissingArgs { allow_missing: tenant.store.allow_missing },
            access: AccessArg::Mapped,
            kernel: None,
        };
        let choices = RowChoices {
            validate: None,
            unproven: tenant.store.unproven,
            ids: tenant.store.ids,
            lone_surrogates: tenant.store.lone_surrogates,
            patient_references: tenant.store.patient_references,
            compartment_paths: tenant.store.compartment_paths,
            follow_symlinks: tenant.store.follow_symlinks,
        };
        let search_columns = SearchColumnOptions {
            // Checked above.
            listed: read_names(&tenant.store.search_columns).unwrap_or_default(),
            others_max: tenant.store.other_search_columns,
            disk_high_water: config.jobs.disk_high_water,
        };
        match open_store(&store, choices, false, tenant.data.sync) {
            Ok(store) => stores.push(store.with_search_columns(search_columns)),
            Err(error) => {
                report_error(log_format, &error.to_string());
                return Exit::BadRequest;
            }
        }
    }
    let stops = interrupts();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            report_error(log_format, &format!("cannot start threads: {error}"));
            return Exit::Failed;
        }
    };
    let stop = async {
        while !stops.load(Relaxed) {
            tokio::time::sleep(STOP_POLL).await;
        }
        tracing::info!("stopping: answers in flight may end, jobs are parked");
    };
    match runtime.block_on(serve(config, stores, |served| report_addresses(log_format, served), stop)) {
        Ok(()) => Exit::Done,
        Err(error) => {
            report_error(log_format, &error);
            Exit::Failed
        }
    }
}

/// The configuration in force: that of the file, or the default, with the flags given in place of its values. Its values
/// are not checked.
///
/// # Errors
/// If the file cannot be read or parsed.
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
    // A pipe cannot be read again: then the clients are not reloaded while the service runs.
    config.file = args.config.clone().filter(|path| path.is_file());
    if let Some(listen) = args.listen {
        config.listen = listen;
    }
    match verbosity() {
        Verbosity::Quiet => config.log.level = "warn".to_string(),
        Verbosity::Normal => {}
        Verbosity::Verbose => config.log.level = "debug".to_string(),
    }
    for (flag, setting) in [
        (&args.store, &mut config.store.path),
        (&args.index_dir, &mut config.store.index_dir),
        (&args.data, &mut config.data.path),
        (&args.jobs, &mut config.data.jobs),
    ] {
        if let Some(flag) = flag {
            setting.clone_from(flag);
        }
    }
    Ok(config)
}

/// Checks the values of a configuration.
///
/// # Errors
/// All problems of the configuration at once.
fn check_configuration(config: &Config) -> Result<(), RequestError> {
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
        Ok(())
    } else {
        Err(RequestError { problems: problems.into_iter().map(Into::into).collect() })
    }
}

/// Sets up logging on standard error, with the level and the form of the configuration. As JSON, a panic is an event of the
/// log, too.
fn init_logging(config: &Config) {
    let level = config.log.level.parse().unwrap_or(LevelFilter::INFO);
    let builder = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr);
    // A second service in one process fails here, and logs as the first one does.
    match config.log.format {
        LogFormat::Json => {
            builder.json().flatten_event(true).try_init().ok();
            std::panic::set_hook(Box::new(|panic| tracing::error!(panic = %panic, "a thread panicked")));
        }
        LogFormat::Text => drop(builder.with_ansi(std::io::stderr().is_terminal()).try_init()),
    }
}

/// Reports why the service does not start or ends: as a line for people, or as an event of a log that is JSON.
fn report_error(log_format: LogFormat, error: &str) {
    match log_format {
        LogFormat::Text => log_line(&format!("error: {error}")),
        LogFormat::Json => tracing::error!("{error}"),
    }
}

/// Reports the address and the base URLs of the running service: as lines for people, or as events of a log that is JSON.
fn report_addresses(log_format: LogFormat, served: &ServeInfo) {
    let scheme = if served.tls { "https" } else { "http" };
    let address = format!("outpour serves on {scheme}://{}; stop it with Ctrl-C", served.listen);
    let bases = served.bases.iter().map(|base| format!("{base}/metadata says what can be asked"));
    match log_format {
        LogFormat::Text => {
            tell(&address);
            bases.for_each(|line| tell(&format!("  {line}")));
        }
        LogFormat::Json => {
            tracing::info!("{address}");
            bases.for_each(|line| tracing::info!("{line}"));
        }
    }
}
