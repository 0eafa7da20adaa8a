//! Configuration of the mounts: one table of keys for each, whose defaults depend on the dialect (DIALECT-04).

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::byte_size::deserialize_size;
use crate::group::lookup::MembershipRule;
use crate::limits::{NAME_BYTES_MAX, ONEUP_GROUP_BYTES_MAX, ONEUP_GROUP_MEMBERS_MAX};
use crate::named_enum::by_name;
use crate::policies::{Context, LateArrivals, MissingLastUpdated, NewMembers, PatientStrict, Vanished};
use crate::server::config::presets::{PresetConfig, preset_problems};

/// Segment of a base path that the name of a tenant replaces.
pub(crate) const CUSTOMER: &str = "{customer}";
/// Default retention of files in dialects whose files expire, in seconds.
const RETENTION_SECONDS: u64 = 7 * 24 * 3600;

/// The configuration of one mount.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MountConfig {
    /// Whether the mount is served.
    pub enabled: bool,
    /// Path of the base, with a slash in front. With the segment `{customer}`, the mount is served once for each
    /// tenant, under the tenant's name.
    pub base: String,
    /// Name of the tenant whose data it exports, if the base has no `{customer}`.
    pub tenant: String,
    /// Whether answers hold only the fields of the vendor's documents (DIALECT-06).
    pub strict_dialect: bool,
    /// Accepted kinds of credentials, once clients are configured: `bearer`, `client-headers` (C-14).
    pub authorization: Vec<Authorization>,
    /// `strict` refuses a kick-off without `Accept` or `Prefer` headers, `assume` takes them as sent (HDR-01,
    /// HDR-03).
    pub header_policy: HeaderPolicy,
    /// Members of a Group that count: with `active` those that are not inactive and whose period covers the time of the
    /// export, with `listed` all (GROUP-04, C-10).
    pub members: MembershipRule,
    /// Resources that are no patient's records and come with those that refer to them: `none`, `referenced` or `changed` (COMP-06, SINCE-05).
    pub context: Context,
    /// Rows that reached the store after `_since` with an earlier date: `include` or `report`.
    pub late: LateArrivals,
    /// Rows without `meta.lastUpdated` under `_since` and `_until`: `include` or `exclude`.
    pub missing_last_updated: MissingLastUpdated,
    /// Resources that are gone from a file of the store that was replaced, under `_since`: `report` or `delete`.
    pub vanished: Vanished,
    /// Patients who joined a Group after `_since`: `full` exports all their records, `report` counts them, `ignore` does nothing
    /// (GROUP-11).
    pub new_members: NewMembers,
    /// Whether a kick-off is refused that names a patient in `patient` who is not in the Group, or not known; else each is a
    /// warning (PATIENT-05).
    pub strict_patients: bool,
    /// Which rows belong to the patients of `patient`: with `any` those in the record of one of them, with `all` only those of
    /// these that are in nobody else's record (COMP-05).
    pub patient_strict: PatientStrict,
    /// How far `_since` may lie in the future, in seconds, to allow for the client's clock (SINCE-03).
    pub clock_skew_seconds: u64,
    /// Whether `$export` of the whole system is on; for 1upHealth, `$export` of a user or client.
    pub system_level: bool,
    /// Whether the export of all patients is on.
    pub patient_level: bool,
    /// Whether the first poll of a job is always answered 202, as a public test suite expects (CLIENT-12).
    pub first_poll_in_progress: bool,
    /// How long a kick-off waits for its job, in milliseconds, unless the client prefers `respond-async` (ONEUP-M10).
    pub sync_wait_milliseconds: u64,
    /// Body of an accepted kick-off on the Netsmart mount (C-09).
    pub accepted_body: AcceptedBody,
    /// Retention of files after the end of their job, in seconds; 0 for unlimited (C-04).
    pub keep_seconds: u64,
    /// Whether Groups can be searched.
    pub groups_searchable: bool,
    /// Whether clients may create, change and delete Groups; on 1upHealth's mounts only create them (ONEUP-G07).
    pub groups_writable: bool,
    /// Largest number of members in a Group from a client.
    pub group_members_max: u64,
    /// Largest Group from a client, in bytes without white space, if its members have more than an identity
    /// (ONEUP-G04); 0 for no limit.
    #[serde(deserialize_with = "deserialize_size")]
    pub group_bytes_max: u64,
    /// Profiles that the CapabilityStatement names, by resource type (NETSMART-G08).
    pub supported_profiles: BTreeMap<String, Vec<String>>,
    /// Presets of `includeAssociatedData`, by name (ASSOC-09).
    pub presets: BTreeMap<String, PresetConfig>,
}

/// A kind of credentials, see [`MountConfig::authorization`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum Authorization {
    Bearer,
    ClientHeaders,
}

impl Authorization {
    /// Every value, for parsing.
    pub(crate) const ALL: [Authorization; 2] = [Authorization::Bearer, Authorization::ClientHeaders];

    /// The word in the configuration.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Authorization::Bearer => "bearer",
            Authorization::ClientHeaders => "client-headers",
        }
    }
}

/// Treatment of missing headers, see [`MountConfig::header_policy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum HeaderPolicy {
    Strict,
    Assume,
}

impl HeaderPolicy {
    /// Every value, for parsing.
    pub(crate) const ALL: [HeaderPolicy; 2] = [HeaderPolicy::Strict, HeaderPolicy::Assume];

    /// The word in the configuration.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            HeaderPolicy::Strict => "strict",
            HeaderPolicy::Assume => "assume",
        }
    }
}

/// Body of an accepted kick-off, see [`MountConfig::accepted_body`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AcceptedBody {
    /// An OperationOutcome with one informational issue.
    Outcome,
    /// The first fields of a manifest: `transactionTime`, `request`, `requiresAccessToken`.
    Request,
}

impl AcceptedBody {
    /// Every value, for parsing.
    pub(crate) const ALL: [AcceptedBody; 2] = [AcceptedBody::Outcome, AcceptedBody::Request];

    /// The word in the configuration.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            AcceptedBody::Outcome => "outcome",
            AcceptedBody::Request => "request",
        }
    }
}

by_name!(Authorization, HeaderPolicy, AcceptedBody);

impl MountConfig {
    /// Defaults of the Bulk Data Access IG (DIALECT-02).
    pub(crate) fn ig() -> MountConfig {
        MountConfig {
            enabled: true,
            base: "/fhir".to_string(),
            tenant: crate::server::config::mounts::DEFAULT_TENANT.to_string(),
            strict_dialect: false,
            authorization: vec![Authorization::Bearer],
            header_policy: HeaderPolicy::Strict,
            members: MembershipRule::Active,
            context: Context::Referenced,
            late: LateArrivals::Include,
            missing_last_updated: MissingLastUpdated::Include,
            vanished: Vanished::Report,
            new_members: NewMembers::Report,
            strict_patients: false,
            patient_strict: PatientStrict::Any,
            clock_skew_seconds: 60,
            system_level: true,
            patient_level: true,
            first_poll_in_progress: true,
            sync_wait_milliseconds: 0,
            accepted_body: AcceptedBody::Outcome,
            keep_seconds: RETENTION_SECONDS,
            groups_searchable: true,
            groups_writable: true,
            group_members_max: 1_000_000,
            group_bytes_max: 0,
            supported_profiles: BTreeMap::new(),
            presets: BTreeMap::new(),
        }
    }

    /// Defaults of Netsmart: Groups are read and exported, nothing else (NETSMART-G03).
    pub(crate) fn netsmart() -> MountConfig {
        MountConfig {
            base: "/uscore/v1/bulk-data".to_string(),
            header_policy: HeaderPolicy::Assume,
            system_level: false,
            patient_level: false,
            first_poll_in_progress: false,
            groups_searchable: false,
            groups_writable: false,
            new_members: NewMembers::Ignore,
            ..MountConfig::ig()
        }
    }

    /// Defaults of 1upHealth's single-tenant environment: files do not expire (ONEUP-S19).
    pub(crate) fn oneup_ste() -> MountConfig {
        MountConfig {
            base: "/bulk-data/r4".to_string(),
            authorization: vec![Authorization::Bearer, Authorization::ClientHeaders],
            members: MembershipRule::Listed,
            context: Context::None,
            keep_seconds: 0,
            group_members_max: ONEUP_GROUP_MEMBERS_MAX,
            group_bytes_max: ONEUP_GROUP_BYTES_MAX,
            system_level: true,
            ..MountConfig::netsmart()
        }
    }

    /// Defaults of 1upHealth's multi-tenant environment: bearer tokens only (ONEUP-M09), and kick-offs that wait for
    /// their jobs (ONEUP-M10).
    pub(crate) fn oneup_mte() -> MountConfig {
        MountConfig {
            base: format!("/v1/{CUSTOMER}/bulk-export/bulk-data/r4"),
            authorization: vec![Authorization::Bearer],
            system_level: false,
            patient_level: true,
            groups_searchable: true,
            sync_wait_milliseconds: 20_000,
            ..MountConfig::oneup_ste()
        }
    }

    /// Retention of files after the end of their job, in seconds; `None` for unlimited.
    pub(crate) fn retention_seconds(&self) -> Option<u64> {
        Some(self.keep_seconds).filter(|seconds| *seconds > 0)
    }

    /// Whether the mount is served once for each tenant.
    pub(crate) fn is_for_each_tenant(&self) -> bool {
        self.base.split('/').any(|segment| segment == CUSTOMER)
    }

    /// Problems of this mount alone, one sentence each; `name` is that of its table.
    pub(crate) fn mount_settings_problems(&self, name: &str, tenants: &[String]) -> Vec<String> {
        let mut problems = Vec::new();
        if !self.enabled {
            return problems;
        }
        let base = self.base.replacen(CUSTOMER, "customer", 1);
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~/".contains(c);
        let segments = base.split('/').skip(1).all(|segment| !segment.is_empty() && !segment.starts_with('.'));
        if !base.starts_with('/') || !segments || !base.chars().all(is_plain) {
            problems.push(format!("{name}.base {:?} is no path such as /fhir or /{CUSTOMER}/fhir", self.base));
        }
        if base.starts_with("/health") {
            problems.push(format!("{name}.base stands where /health is"));
        }
        if !self.is_for_each_tenant() && !tenants.contains(&self.tenant) {
            problems.push(format!(
                "{name}.tenant {:?} is no tenant ({}): name one, put {CUSTOMER} into {name}.base, or set {name}.enabled = false",
                self.tenant,
                tenants.join(", ")
            ));
        }
        if self.authorization.is_empty() {
            problems.push(format!("{name}.authorization is empty; give bearer, client-headers or both"));
        }
        if self.accepted_body == AcceptedBody::Request && name != "netsmart" {
            problems.push(format!("{name}.accepted_body: only netsmart's documents show another than \"outcome\""));
        }
        for of in
            self.supported_profiles.keys().filter(|of| crate::fhir::resource_type::ResourceType::parse(of).is_none())
        {
            problems.push(format!("{name}.supported_profiles: {of:?} is no R4 resource type"));
        }
        problems.extend(preset_problems(name, &self.presets));
        problems
    }
}

/// The keys of a table over the defaults of its dialect.
///
/// # Errors
/// An unknown key or a value of the wrong type.
fn apply_defaults<'de, D: Deserializer<'de>>(table: D, defaults: MountConfig) -> Result<MountConfig, D::Error> {
    use serde::de::Error;
    let table = toml::Table::deserialize(table)?;
    let mut all = toml::Table::try_from(defaults).map_err(D::Error::custom)?;
    all.extend(table);
    all.try_into().map_err(|error: toml::de::Error| D::Error::custom(error.message()))
}

/// Deserializes `[ig]` over the IG's defaults.
pub(crate) fn read_ig<'de, D: Deserializer<'de>>(deserializer: D) -> Result<MountConfig, D::Error> {
    apply_defaults(deserializer, MountConfig::ig())
}

/// Deserializes `[netsmart]` over Netsmart's defaults.
pub(crate) fn read_netsmart<'de, D: Deserializer<'de>>(deserializer: D) -> Result<MountConfig, D::Error> {
    apply_defaults(deserializer, MountConfig::netsmart())
}

/// Deserializes `[oneup_ste]` over the defaults of 1upHealth's single-tenant environment.
pub(crate) fn read_oneup_ste<'de, D: Deserializer<'de>>(deserializer: D) -> Result<MountConfig, D::Error> {
    apply_defaults(deserializer, MountConfig::oneup_ste())
}

/// Deserializes `[oneup_mte]` over the defaults of 1upHealth's multi-tenant environment.
pub(crate) fn read_oneup_mte<'de, D: Deserializer<'de>>(deserializer: D) -> Result<MountConfig, D::Error> {
    apply_defaults(deserializer, MountConfig::oneup_mte())
}

/// Whether a tenant can have a name: up to 64 letters, digits, `-`, `.` and `_`, the first of them no `.`.
pub(crate) fn is_tenant_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

/// Name of the tenant that `[store]` and `[data]` outside `[[tenants]]` describe.
pub(crate) const DEFAULT_TENANT: &str = "default";
