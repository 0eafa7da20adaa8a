//! A mount: one dialect at one base. A table of routes and policies over the one job engine (DIALECT-01, DIALECT-05);
//! what the engine does is the same behind every mount.

use super::capability::{Declaration, Policies};
use super::config::Config;
use super::kickoff::KickoffPolicy;
use super::parameters::PARAMETERS;
use super::routes::{Enabled, IG_ROUTES};
use crate::job::Requested;
use crate::job::Whose;
use crate::select::{Bounds, Late, Members, MissingLastUpdated};
use crate::write::digest::DigestAlgorithm;
use crate::write::encode::Coding;

/// See the module.
#[derive(Clone, Debug)]
pub struct Mount {
    /// Its name: jobs remember it.
    pub name: &'static str,
    /// Path of its base.
    pub base: String,
    /// URL of its base, absolute, without a slash at its end (CORE-05).
    pub url: String,
    /// Since when it is as it is: the date of its CapabilityStatement.
    pub since: String,
    /// How kick-offs are read.
    pub kickoff: KickoffPolicy,
    /// What is switched on.
    pub enabled: Enabled,
    /// Whether the first poll of a job is always answered 202 (CLIENT-12).
    pub first_poll_in_progress: bool,
    /// How long files are kept, in seconds; `None` for ever (EXPIRE-01).
    pub keep_seconds: Option<u64>,
    members: Members,
    late: Late,
    missing_last_updated: MissingLastUpdated,
    fhir_bases: Vec<String>,
    bounds: Bounds,
    coding: Coding,
    digest: DigestAlgorithm,
}

impl Mount {
    /// The mount of the Bulk Data IG.
    pub fn ig(config: &Config, public_url: &str) -> Mount {
        let ig = &config.ig;
        let url = format!("{public_url}{}", ig.base);
        let files = &config.files;
        Mount {
            name: "ig",
            base: ig.base.clone(),
            since: super::serve::now().to_string(),
            kickoff: KickoffPolicy {
                headers: ig.header_policy,
                case_sensitive_types: true,
                dates: false,
                clock_skew_seconds: ig.clock_skew_seconds,
            },
            enabled: Enabled {
                system: ig.system_level,
                patient: ig.patient_level,
                group: true,
                groups_writable: config.groups.writable,
            },
            first_poll_in_progress: ig.first_poll_in_progress,
            keep_seconds: Some(config.jobs.keep_seconds).filter(|seconds| *seconds > 0),
            members: ig.members,
            late: ig.late,
            missing_last_updated: ig.missing_last_updated,
            fhir_bases: config.store.fhir_bases.iter().cloned().chain([url.clone()]).collect(),
            bounds: Bounds {
                file_bytes: files.max_bytes,
                file_resources: Some(files.max_resources).filter(|most| *most > 0),
            },
            coding: files.compress,
            digest: files.digest,
            url,
        }
    }

    /// Bases under which absolute references are ours.
    pub fn fhir_bases(&self) -> &[String] {
        &self.fhir_bases
    }

    /// How Group members are read.
    pub fn members(&self) -> Members {
        self.members
    }

    /// A request under this mount's policies.
    pub fn request(&self, whose: Whose, asked: &super::kickoff::Asked) -> Requested {
        Requested {
            whose,
            types: asked.types.iter().map(|of| of.name().to_string()).collect(),
            since: asked.since.as_ref().map(ToString::to_string),
            until: asked.until.as_ref().map(ToString::to_string),
            members: self.members,
            fhir_bases: self.fhir_bases.clone(),
            late: self.late,
            missing_last_updated: self.missing_last_updated,
            bounds: self.bounds,
            coding: self.coding,
            digest: self.digest,
            notes: asked.notes.clone(),
        }
    }

    /// What it says of itself.
    pub fn declaration(&self) -> Declaration<'_> {
        Declaration {
            base_url: &self.url,
            routes: IG_ROUTES,
            parameters: PARAMETERS,
            enabled: self.enabled,
            policies: Policies {
                bounds: self.bounds,
                coding: self.coding,
                members: self.members,
                late: self.late,
                missing_last_updated: self.missing_last_updated,
            },
        }
    }

    /// URL of a job's state.
    pub fn status_url(&self, job: &str) -> String {
        format!("{}/bulk-status/{job}", self.url)
    }

    /// What the URLs of files begin with.
    pub fn files_url(&self) -> String {
        format!("{}/bulk-files/", self.url)
    }
}
