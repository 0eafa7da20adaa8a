//! What is configured for each mount: one table of keys, whose defaults are those of its dialect (DIALECT-04).

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::group::lookup::MembershipRule;
use crate::limits::{ONEUP_GROUP_BYTES_MAX, ONEUP_GROUP_MEMBERS_MAX};
use crate::named_enum::by_name;
use crate::request::{LateArrivals, MissingLastUpdated};

/// What stands in a base for the name of a tenant.
pub(crate) const CUSTOMER: &str = "{customer}";
/// How long files are kept where a dialect lets them expire, in seconds.
const KEPT_SECONDS: u64 = 7 * 24 * 3600;

/// A mount, as it is configured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MountConfig {
    /// Whether it is there.
    pub enabled: bool,
    /// Path of its base, with a slash in front. With `{customer}` as one of its segments the mount stands once for each
    /// tenant, under the tenant's name.
    pub base: String,
    /// The tenant whose data it exports, where the base does not name it.
    pub tenant: String,
    /// Whether answers hold the fields of the vendor's documents alone (DIALECT-06).
    pub strict_dialect: bool,
    /// `bearer`, `client-headers`: how clients may say who they are, once there are any (C-14).
    pub authorization: Vec<Authorization>,
    /// `strict` refuses a kick-off without `Accept` or `Prefer` headers, `assume` takes them as given (HDR-01, HDR-03).
    pub header_policy: HeaderPolicy,
    /// `active` reads Group members as R4 does, `listed` takes all (GROUP-04, C-10).
    pub members: MembershipRule,
    /// Rows that reached the store late: `include` or `report`.
    pub late: LateArrivals,
    /// Rows without `meta.lastUpdated` under `_since` and `_until`: `include` or `exclude`.
    pub missing_last_updated: MissingLastUpdated,
    /// How far in the future `_since` and `_until` may lie, in seconds, because clocks differ (SINCE-03).
    pub clock_skew_seconds: u64,
    /// Whether `$export` of the whole system is on; for 1upHealth, of a user or client.
    pub system_level: bool,
    /// Whether the export of all patients is on.
    pub patient_level: bool,
    /// Whether the first poll of a job is always answered 202, as a public test suite expects (CLIENT-12).
    pub first_poll_in_progress: bool,
    /// How long a kick-off waits for its job, in milliseconds, unless the client prefers `respond-async` (ONEUP-M10).
    pub sync_wait_milliseconds: u64,
    /// What the body of an accepted kick-off is, on the Netsmart mount (C-09).
    pub accepted_body: AcceptedBody,
    /// How long files are kept, in seconds; 0 for ever (C-04).
    pub keep_seconds: u64,
    /// Whether Groups can be searched.
    pub groups_searchable: bool,
    /// Whether clients may make, change and delete Groups; of 1upHealth's only make them (ONEUP-G07).
    pub groups_writable: bool,
    /// Most members of a Group that a client sends.
    pub group_members_max: u64,
    /// Most bytes of a Group that a client sends, without white space, where members say more than whose they are
    /// (ONEUP-G04); 0 for no limit.
    pub group_bytes_max: u64,
    /// Profiles that the CapabilityStatement names for a type, by its name (NETSMART-G08).
    pub supported_profiles: BTreeMap<String, Vec<String>>,
}

/// See [`MountConfig::authorization`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum Authorization {
    Bearer,
    ClientHeaders,
}

impl Authorization {
    /// Every value.
    pub(crate) const ALL: [Authorization; 2] = [Authorization::Bearer, Authorization::ClientHeaders];

    /// Its word in the configuration.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Authorization::Bearer => "bearer",
            Authorization::ClientHeaders => "client-headers",
        }
    }
}

/// See [`MountConfig::header_policy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum HeaderPolicy {
    Strict,
    Assume,
}

impl HeaderPolicy {
    /// Every value.
    pub(crate) const ALL: [HeaderPolicy; 2] = [HeaderPolicy::Strict, HeaderPolicy::Assume];

    /// Its word in the configuration.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            HeaderPolicy::Strict => "strict",
            HeaderPolicy::Assume => "assume",
        }
    }
}

/// See [`MountConfig::accepted_body`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AcceptedBody {
    /// An OperationOutcome.
    Outcome,
    /// What the manifest will begin with: `transactionTime`, `request`, `requiresAccessToken`.
    Request,
}

impl AcceptedBody {
    /// Every value.
    pub(crate) const ALL: [AcceptedBody; 2] = [AcceptedBody::Outcome, AcceptedBody::Request];

    /// Its word in the configuration.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            AcceptedBody::Outcome => "outcome",
            AcceptedBody::Request => "request",
        }
    }
}

by_name!(Authorization, HeaderPolicy, AcceptedBody);

impl MountConfig {
    /// The mount that speaks the Bulk Data Access IG (DIALECT-02).
    pub(crate) fn ig() -> MountConfig {
        MountConfig {
            enabled: true,
            base: "/fhir".to_string(),
            tenant: crate::server::config::mounts::DEFAULT_TENANT.to_string(),
            strict_dialect: false,
            authorization: vec![Authorization::Bearer],
            header_policy: HeaderPolicy::Strict,
            members: MembershipRule::Active,
            late: LateArrivals::Include,
            missing_last_updated: MissingLastUpdated::Include,
            clock_skew_seconds: 60,
            system_level: true,
            patient_level: true,
            first_poll_in_progress: true,
            sync_wait_milliseconds: 0,
            accepted_body: AcceptedBody::Outcome,
            keep_seconds: KEPT_SECONDS,
            groups_searchable: true,
            groups_writable: true,
            group_members_max: 1_000_000,
            group_bytes_max: 0,
            supported_profiles: BTreeMap::new(),
        }
    }

    /// Netsmart's: Groups are read and exported, nothing else (NETSMART-G03).
    pub(crate) fn netsmart() -> MountConfig {
        MountConfig {
            base: "/uscore/v1/bulk-data".to_string(),
            header_policy: HeaderPolicy::Assume,
            system_level: false,
            patient_level: false,
            first_poll_in_progress: false,
            groups_searchable: false,
            groups_writable: false,
            ..MountConfig::ig()
        }
    }

    /// 1upHealth's single-tenant environment: nothing expires (ONEUP-S19).
    pub(crate) fn oneup_ste() -> MountConfig {
        MountConfig {
            base: "/bulk-data/r4".to_string(),
            authorization: vec![Authorization::Bearer, Authorization::ClientHeaders],
            members: MembershipRule::Listed,
            keep_seconds: 0,
            group_members_max: ONEUP_GROUP_MEMBERS_MAX,
            group_bytes_max: ONEUP_GROUP_BYTES_MAX,
            system_level: true,
            ..MountConfig::netsmart()
        }
    }

    /// 1upHealth's multi-tenant environment: tokens alone (ONEUP-M09), and answers that wait (ONEUP-M10).
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

    /// How long files are kept, in seconds; `None` for ever.
    pub(crate) fn retention_seconds(&self) -> Option<u64> {
        Some(self.keep_seconds).filter(|seconds| *seconds > 0)
    }

    /// Whether it stands once for each tenant.
    pub(crate) fn is_for_each_tenant(&self) -> bool {
        self.base.split('/').any(|segment| segment == CUSTOMER)
    }

    /// What is wrong with it by itself; `name` is that of its table.
    pub(crate) fn mount_settings_problems(&self, name: &str, tenants: &[String]) -> Vec<String> {
        let mut problems = Vec::new();
        if !self.enabled {
            return problems;
        }
        let base = self.base.replacen(CUSTOMER, "customer", 1);
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~/".contains(c);
        let segments = base.split('/').skip(1).all(|segment| !segment.is_empty() && !segment.starts_with('.'));
        if !base.starts_with('/') || !segments || !base.chars().all(plain) {
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
        problems
    }
}

/// Keys that are given, over a dialect's defaults.
fn apply_defaults<'de, D: Deserializer<'de>>(given: D, defaults: MountConfig) -> Result<MountConfig, D::Error> {
    use serde::de::Error;
    let given = toml::Table::deserialize(given)?;
    let mut all = toml::Table::try_from(defaults).map_err(D::Error::custom)?;
    all.extend(given);
    all.try_into().map_err(|error: toml::de::Error| D::Error::custom(error.message()))
}

/// `[ig]`, for serde.
pub(crate) fn read_ig<'de, D: Deserializer<'de>>(given: D) -> Result<MountConfig, D::Error> {
    apply_defaults(given, MountConfig::ig())
}

/// `[netsmart]`, for serde.
pub(crate) fn read_netsmart<'de, D: Deserializer<'de>>(given: D) -> Result<MountConfig, D::Error> {
    apply_defaults(given, MountConfig::netsmart())
}

/// `[oneup_ste]`, for serde.
pub(crate) fn read_oneup_ste<'de, D: Deserializer<'de>>(given: D) -> Result<MountConfig, D::Error> {
    apply_defaults(given, MountConfig::oneup_ste())
}

/// `[oneup_mte]`, for serde.
pub(crate) fn read_oneup_mte<'de, D: Deserializer<'de>>(given: D) -> Result<MountConfig, D::Error> {
    apply_defaults(given, MountConfig::oneup_mte())
}

/// Name of the tenant whose store and data stand outside `[[tenants]]`.
pub(crate) const DEFAULT_TENANT: &str = "default";
