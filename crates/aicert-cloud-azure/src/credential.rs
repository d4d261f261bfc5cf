//! Where access tokens come from.

use std::env;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use aicert_cloud_common::one_line;
use aicert_core::secret::Secret;
use async_trait::async_trait;
use azure_core_now::credentials::{AccessToken, Secret as SdkSecret, TokenCredential};
use azure_core_now::http::{ClientOptions, Transport};
use azure_identity::{
    ClientSecretCredential, ClientSecretCredentialOptions, DeveloperToolsCredential,
    ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId, WorkloadIdentityCredential,
    WorkloadIdentityCredentialOptions,
};
use reqwest::header::HeaderValue;
use time::OffsetDateTime;
use tokio::sync::Mutex;

use crate::error::Failure;
use crate::transport::Http;

/// How long before it expires a token is not used any more.
const MARGIN: time::Duration = time::Duration::minutes(2);

/// What firmware says of every machine of Azure, as cloud-init knows it (`DataSourceAzure`): the tag of the chassis.
const CHASSIS: &str = "/sys/class/dmi/id/chassis_asset_tag";
const AZURE_CHASSIS: &str = "7783-7084-3265-9085-8269-3286-77";

/// A source of tokens for one scope, asked when the first is needed.
pub(crate) struct Credential {
    scope: String,
    http: Http,
    given: Option<Arc<dyn TokenCredential>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    source: Option<Arc<dyn TokenCredential>>,
    token: Option<Token>,
}

/// An access token.
#[derive(Clone)]
pub(crate) struct Token {
    text: Secret,
    expires: OffsetDateTime,
}

impl Token {
    pub(crate) fn header(&self) -> Result<HeaderValue, Failure> {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", self.text.expose())).map_err(|_| {
            Failure::Credential {
                why: "what came is no token".into(),
            }
        })?;
        value.set_sensitive(true);
        Ok(value)
    }

    fn is_fresh(&self) -> bool {
        self.expires > OffsetDateTime::now_utc() + MARGIN
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

impl Credential {
    /// For Resource Manager at an endpoint; from the environment, unless one is given.
    pub(crate) fn new(endpoint: &url::Url, http: Http, given: Option<Arc<dyn TokenCredential>>) -> Self {
        Self {
            scope: format!("{}/.default", endpoint.origin().ascii_serialization()),
            http,
            given,
            state: Mutex::default(),
        }
    }

    /// A token that is valid for a while.
    pub(crate) async fn token(&self) -> Result<Token, Failure> {
        let mut state = self.state.lock().await;
        match &state.token {
            Some(token) if token.is_fresh() => Ok(token.clone()),
            _ => self.ask(&mut state).await,
        }
    }

    /// Another token than one that was refused.
    pub(crate) async fn renewed(&self, refused: &Token) -> Result<Token, Failure> {
        let mut state = self.state.lock().await;
        match &state.token {
            // Somebody else was faster.
            Some(token) if token.text.expose() != refused.text.expose() && token.is_fresh() => {
                Ok(token.clone())
            }
            _ => {
                // Credentials keep tokens themselves.
                state.source = None;
                self.ask(&mut state).await
            }
        }
    }

    async fn ask(&self, state: &mut State) -> Result<Token, Failure> {
        state.token = None;
        let failed = |error: azure_core_now::Error| Failure::Credential {
            why: one_line(&error.to_string()),
        };
        let source = match (&state.source, &self.given) {
            (Some(source), _) | (None, Some(source)) => Arc::clone(source),
            (None, None) => chain(&self.http).map_err(failed)?,
        };
        let AccessToken {
            token, expires_on, ..
        } = source.get_token(&[&self.scope], None).await.map_err(failed)?;
        if expires_on <= OffsetDateTime::now_utc() {
            return Err(Failure::Credential {
                why: format!("the one that came has expired at {expires_on}"),
            });
        }
        let token = Token {
            text: Secret::new(token.secret().to_owned()),
            expires: expires_on,
        };
        state.source = Some(source);
        state.token = Some(token.clone());
        Ok(token)
    }
}

/// Microsoft's default chain: a service principal in the environment; a workload identity; a managed identity, on machines
/// that are Azure's; a login with `az`, or with `azd`. The first two are chosen by what the environment says, and if they fail,
/// nothing else is asked.
fn chain(http: &Http) -> azure_core_now::Result<Arc<dyn TokenCredential>> {
    let options = || ClientOptions {
        transport: Some(Transport::new(Arc::new(http.clone()))),
        ..ClientOptions::default()
    };
    let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
    let client = variable("AZURE_CLIENT_ID");
    if let (Some(tenant), Some(client), Some(secret)) = (
        variable("AZURE_TENANT_ID"),
        &client,
        variable("AZURE_CLIENT_SECRET"),
    ) {
        let options = ClientSecretCredentialOptions {
            client_options: options(),
        };
        return Ok(ClientSecretCredential::new(
            &tenant,
            client.clone(),
            SdkSecret::new(secret),
            Some(options),
        )?);
    }
    if variable("AZURE_FEDERATED_TOKEN_FILE").is_some() {
        let mut workload = WorkloadIdentityCredentialOptions::default();
        workload.credential_options.client_options = options();
        return Ok(WorkloadIdentityCredential::new(Some(workload))?);
    }
    let mut sources: Vec<Arc<dyn TokenCredential>> = Vec::new();
    if variable("IDENTITY_ENDPOINT").is_some() || is_azure(Path::new(CHASSIS)) {
        sources.push(ManagedIdentityCredential::new(Some(
            ManagedIdentityCredentialOptions {
                user_assigned_id: client.map(UserAssignedId::ClientId),
                client_options: options(),
            },
        ))?);
    }
    sources.push(DeveloperToolsCredential::new(None)?);
    Ok(Arc::new(Chain(sources)))
}

fn is_azure(chassis: &Path) -> bool {
    std::fs::read_to_string(chassis).is_ok_and(|tag| tag.trim() == AZURE_CHASSIS)
}

/// The first that has a token.
#[derive(Debug)]
struct Chain(Vec<Arc<dyn TokenCredential>>);

#[async_trait]
impl TokenCredential for Chain {
    async fn get_token(
        &self,
        scopes: &[&str],
        options: Option<azure_core_now::credentials::TokenRequestOptions<'_>>,
    ) -> azure_core_now::Result<AccessToken> {
        let mut failed = Vec::new();
        for source in &self.0 {
            match source.get_token(scopes, options.clone()).await {
                Ok(token) => return Ok(token),
                Err(error) => failed.push(error.to_string()),
            }
        }
        Err(azure_core_now::Error::with_message(
            azure_core_now::error::ErrorKind::Credential,
            failed.join("; "),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_of_azure_are_known_by_their_chassis() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tag");
        assert!(!is_azure(&path));
        std::fs::write(&path, format!("{AZURE_CHASSIS}\n")).unwrap();
        assert!(is_azure(&path));
        std::fs::write(&path, "1234\n").unwrap();
        assert!(!is_azure(&path));
    }

    #[test]
    fn tokens_are_never_shown() {
        let token = Token {
            text: Secret::new("very-secret".into()),
            expires: OffsetDateTime::now_utc(),
        };
        assert!(!format!("{:?}", token.header().unwrap()).contains("very-secret"));
        assert!(!token.is_fresh());
    }
}
