//! A mount: one dialect at one base URL, over the job engine of one tenant.
//!
//! It turns the configuration of the mount (DIALECT-01, DIALECT-05) into the policies that kick-offs, Groups and the
//! CapabilityStatement go by. The engine behaves the same behind every mount.

use axum::body::Body;
use axum::http::{Response, Uri};
use axum::response::IntoResponse;

use crate::codec::compression::Compression;
use crate::fhir::attachment_url::AttachmentUrls;
use crate::group::member_filter::FilteredGroups;
use crate::group::rules::{GroupContent, GroupRules};
use crate::hash::digest::DigestAlgorithm;
use crate::job::api::JobLookup;
use crate::policies::{Audience, FileBounds};
use crate::request::ExportRequest;
use crate::server::auth::{Authenticator, Principal};
use crate::server::capability::{Declaration, Policies};
use crate::server::config::Config;
use crate::server::config::mounts::{Authorization, CUSTOMER, MountConfig, is_tenant_name};
use crate::server::dialect::Dialect;
use crate::server::dialect::job_view::{MountView, PolledJob};
use crate::server::dialect::render::{expired_error, separate_status};
use crate::server::error::ApiError;
use crate::server::ids::now;
use crate::server::kick_off::request::KickOffPolicy;
use crate::server::routes::{Enabled, Route, routes_on};

/// A mount with its policies, ready to serve.
#[derive(Clone, Debug)]
pub(crate) struct Mount {
    /// The dialect of its URLs, parameters and answers.
    pub dialect: &'static Dialect,
    /// The table of the mount in the configuration.
    pub settings: MountConfig,
    /// Position of its tenant in [`Config::all_tenants`].
    pub tenant: usize,
    /// Path of the base, with a slash in front and none at the end.
    pub base: String,
    /// Absolute URL of the base, without a slash at its end (CORE-05).
    pub url: String,
    /// Start of the service as a FHIR instant: the date of the CapabilityStatement.
    pub since: String,
    /// How headers and parameters of kick-offs are checked.
    pub kickoff: KickOffPolicy,
    /// The operations that are switched on.
    pub enabled: Enabled,
    /// Base URLs under which an absolute reference points into the tenant's store.
    fhir_bases: Vec<String>,
    /// Size limits of an output file.
    bounds: FileBounds,
    /// Compression of stored files.
    compression: Compression,
    /// Digest of files in the manifest.
    digest: DigestAlgorithm,
}

impl Mount {
    /// All enabled mounts, each once for every tenant it serves. `public_url` is the URL that bases are appended to.
    /// No two mounts of a tenant have the same name, since each has its own dialect.
    pub(crate) fn all(config: &Config, public_url: &str) -> Vec<Mount> {
        let tenants = config.all_tenants();
        let mut mounts = Vec::new();
        for (table, settings) in config.mounts().into_iter().filter(|(_, settings)| settings.enabled) {
            for (i, tenant) in tenants.iter().enumerate() {
                if settings.is_for_each_tenant() || settings.tenant == tenant.name {
                    let base = settings.base.replacen(CUSTOMER, &tenant.name, 1);
                    mounts.push(Mount::new(config, settings, Dialect::named(table), i, base, public_url));
                }
            }
        }
        // A reference to any mount of a tenant is local on all its mounts, so that Groups have the same members on each
        // (DIALECT-05).
        let urls: Vec<(usize, String)> = mounts.iter().map(|mount| (mount.tenant, mount.url.clone())).collect();
        let since = now().to_string();
        for mount in &mut mounts {
            // One start for all: the dates of their CapabilityStatements must not tell tenants from one another.
            mount.since.clone_from(&since);
            let tenant = mount.tenant;
            let own = urls.iter().filter(|(of, _)| *of == tenant).map(|(_, url)| url.clone());
            mount.fhir_bases = tenants[tenant].store.fhir_bases.iter().cloned().chain(own).collect();
        }
        mounts
    }

    /// The mount of `settings` for one tenant; [`Mount::all`] fills in `fhir_bases`.
    fn new(
        config: &Config,
        settings: &MountConfig,
        dialect: &'static Dialect,
        tenant: usize,
        base: String,
        public_url: &str,
    ) -> Mount {
        let files = &config.files;
        Mount {
            dialect,
            tenant,
            url: format!("{public_url}{base}"),
            base,
            since: now().to_string(),
            kickoff: KickOffPolicy {
                headers: settings.header_policy,
                parameters: dialect.parameters,
                answer_types: dialect.kick_off_types,
                case_sensitive_types: dialect.case_sensitive_types,
                compartment_types: dialect.compartment_types,
                type_refused: dialect.type_refused,
                dates: dialect.dates,
                clock_skew_seconds: settings.clock_skew_seconds,
                presets: settings.presets.iter().map(|(name, preset)| (name.clone(), preset.resolved())).collect(),
            },
            enabled: Enabled {
                system: settings.system_level,
                patient: settings.patient_level,
                group: true,
                groups_searchable: settings.groups_searchable,
                groups_writable: settings.groups_writable,
            },
            fhir_bases: Vec::new(),
            bounds: FileBounds {
                file_bytes: files.max_bytes,
                file_resources: Some(files.max_resources).filter(|most| *most > 0),
            },
            compression: files.compress,
            digest: files.digest,
            settings: settings.clone(),
        }
    }

    /// This mount at another base.
    fn at_base(&self, base: String) -> Mount {
        Mount { url: format!("{}{base}", self.root_url()), base, ..self.clone() }
    }

    /// Name of the dialect, which job records keep to tell the mounts of a tenant apart.
    pub(crate) fn name(&self) -> &'static str {
        self.dialect.name
    }

    /// The public URL that the mount's base is appended to.
    pub(crate) fn root_url(&self) -> &str {
        self.url.strip_suffix(&self.base).unwrap_or(&self.url)
    }

    /// The absolute URL of a request, with path and query exactly as received (MANIFEST-02).
    pub(crate) fn url_of(&self, uri: &Uri) -> String {
        format!("{}{}", self.root_url(), uri.path_and_query().map_or("/", |path| path.as_str()))
    }

    /// The routes of the dialect that are switched on.
    pub(crate) fn routes(&self) -> impl Iterator<Item = &'static Route> + '_ {
        routes_on(self.dialect.routes, &self.enabled)
    }

    /// Base URLs under which an absolute reference points into the tenant's store: configured ones and the URLs of
    /// the tenant's mounts.
    pub(crate) fn fhir_bases(&self) -> &[String] {
        &self.fhir_bases
    }

    /// The rules that a Group from a client must meet on this mount.
    pub(crate) fn group_rules(&self) -> GroupRules {
        GroupRules {
            content: if self.dialect.group_rules { GroupContent::Patients } else { GroupContent::R4 },
            members_max: Some(self.settings.group_members_max),
            bytes_max: Some(self.settings.group_bytes_max).filter(|most| *most > 0),
            filtered: self.filtered_groups(),
        }
    }

    /// What becomes of a Group that has filters of its members: 1upHealth's documents know of none.
    pub(crate) fn filtered_groups(&self) -> FilteredGroups {
        if self.dialect.group_rules { FilteredGroups::Refused } else { FilteredGroups::Evaluated }
    }

    /// An export request with the policies of this mount, of everything, for a client that is limited to some of it.
    pub(crate) fn request(&self) -> ExportRequest {
        let settings = &self.settings;
        let mut request = ExportRequest::system().context(settings.context).members(settings.members);
        request = request.late(settings.late).missing_last_updated(settings.missing_last_updated);
        request = request.vanished(settings.vanished).patient_strict(settings.patient_strict);
        request = request.compression(self.compression);
        request.filtered_groups = self.filtered_groups();
        request.new_members = settings.new_members;
        request.fhir_bases.clone_from(&self.fhir_bases);
        (request.bounds, request.digest) = (self.bounds, self.digest);
        request.attachments = Some(AttachmentUrls::new(&self.url, self.dialect.attachments));
        request.audience = Audience::BoundClient;
        request
    }

    /// The facts that the CapabilityStatement of this mount is made from, the authentication among them.
    pub(crate) fn capability_declaration(&self, authenticator: &dyn Authenticator) -> Declaration<'_> {
        let takes_tokens = self.settings.authorization.contains(&Authorization::Bearer);
        Declaration {
            base_url: &self.url,
            routes: self.dialect.routes,
            parameters: self.dialect.parameters,
            attachments: self.dialect.attachments,
            enabled: self.enabled,
            security: authenticator.describe(),
            root_url: self.root_url(),
            names_smart: authenticator.gives_tokens() && takes_tokens,
            profiles: &self.settings.supported_profiles,
            presets: &self.settings.presets,
            policies: Policies {
                bounds: self.bounds,
                compression: self.compression,
                members: self.settings.members,
                filtered_groups: self.filtered_groups(),
                context: self.settings.context,
                late: self.settings.late,
                missing_last_updated: self.settings.missing_last_updated,
                vanished: self.settings.vanished,
                new_members: self.settings.new_members,
                strict_patients: self.settings.strict_patients,
                patient_strict: self.settings.patient_strict,
            },
        }
    }

    /// The part of this mount that the renderings of a dialect read.
    pub(crate) fn view(&self) -> MountView<'_> {
        MountView {
            base_url: &self.url,
            settings: &self.settings,
            status_path: self.dialect.status_path,
            file_path: self.dialect.file_path,
        }
    }

    /// The answer to a status poll, as this mount's dialect renders it (STATUS-01…13); 404 for an unknown job, 410
    /// for an expired one.
    pub(crate) fn status_answer(
        &self,
        found: &JobLookup,
        principal: &Principal,
        requires_access_token: bool,
    ) -> Response<Body> {
        match found {
            JobLookup::Unknown => ApiError::not_found("this job").into_response(),
            JobLookup::Expired => {
                expired_error("the files of this job were kept until their time and are gone; ask again")
                    .into_response()
            }
            JobLookup::Job(view) => {
                let bound_client = principal.is_bound() || view.record.request.bound_client;
                let answer = (self.dialect.render_polled)(&PolledJob {
                    mount: self.view(),
                    view,
                    requires_access_token,
                    bound_client,
                });
                if view.record.separate_status { separate_status(answer) } else { answer }
            }
        }
    }
}

/// A mount that stands once for each tenant, under names that no tenant has.
pub(crate) struct UnknownTenantMount {
    /// With [`CUSTOMER`] in its base. No request reaches the data of its `tenant`.
    mount: Mount,
    /// Position of [`CUSTOMER`] among the segments of the base, from 0.
    segment: usize,
}

impl UnknownTenantMount {
    /// One for each enabled mount that stands once for each tenant. `public_url` and `since` are those of the mounts.
    pub(crate) fn all(config: &Config, mounts: &[Mount], public_url: &str) -> Vec<UnknownTenantMount> {
        let for_each =
            config.mounts().into_iter().filter(|(_, settings)| settings.enabled && settings.is_for_each_tenant());
        let one = |(table, settings): (&'static str, &MountConfig)| {
            let base = settings.base.clone();
            let segment = base.split('/').skip(1).position(|segment| segment == CUSTOMER).unwrap_or_default();
            let mut mount = Mount::new(config, settings, Dialect::named(table), usize::MAX, base, public_url);
            if let Some(known) = mounts.first() {
                mount.since.clone_from(&known.since);
            }
            UnknownTenantMount { mount, segment }
        };
        for_each.map(one).collect()
    }

    /// Path of the base, with the tenant's name as a parameter.
    pub(crate) fn base(&self) -> &str {
        &self.mount.base
    }

    /// Name of the dialect.
    pub(crate) fn name(&self) -> &'static str {
        self.mount.name()
    }

    /// The routes of the mount that are switched on.
    pub(crate) fn routes(&self) -> impl Iterator<Item = &'static Route> + '_ {
        self.mount.routes()
    }

    /// The mount under the name in a path; `None` for what no tenant can be named.
    pub(crate) fn named_in(&self, path: &str) -> Option<Mount> {
        let name = path.split('/').skip(1).nth(self.segment).filter(|name| is_tenant_name(name))?;
        Some(self.mount.at_base(self.mount.base.replacen(CUSTOMER, name, 1)))
    }
}

/// The segments of each base path, with the dialect of the mount.
pub(crate) struct MountTable(Vec<(Vec<String>, &'static Dialect)>);

impl MountTable {
    /// The bases of the enabled mounts of a configuration.
    pub(crate) fn of(config: &Config) -> MountTable {
        let enabled = config.mounts().into_iter().filter(|(_, mount)| mount.enabled);
        let segments_of = |base: &str| base.split('/').skip(1).map(str::to_string).collect();
        MountTable(enabled.map(|(table, mount)| (segments_of(&mount.base), Dialect::named(table))).collect())
    }

    /// The dialect of the mount whose base a path begins with, and the path below the base; `None` outside all
    /// mounts. Of several the one that names most segments, as the routes have it.
    pub(crate) fn find<'p>(&self, path: &'p str) -> Option<(&'static Dialect, &'p str)> {
        let found = self.0.iter().filter_map(|(base, dialect)| {
            let mut rest = path;
            for segment in base {
                rest = rest.strip_prefix('/')?;
                let end = rest.find('/').unwrap_or(rest.len());
                if segment != CUSTOMER && *segment != rest[..end] {
                    return None;
                }
                rest = &rest[end..];
            }
            let named = base.iter().filter(|segment| *segment != CUSTOMER).count();
            Some((named, *dialect, rest))
        });
        found.max_by_key(|(named, ..)| *named).map(|(_, dialect, rest)| (dialect, rest))
    }
}
