//! Resource groups: making, listing and deleting them.

use serde_json::{Value, json};

use super::pending::What;
use super::{Answer, Request, SUBSCRIPTION, World, answer, refuse};

#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) location: Value,
    pub(super) tags: Value,
    pub(super) unlisted: usize,
    pub(super) deleting: bool,
    pub(super) planted: bool,
}

impl World {
    pub(in crate::azure) fn plant_group(&mut self, name: &str) {
        let group = Group {
            name: name.into(),
            location: json!("westeurope"),
            tags: json!({ "team": "somebody-else" }),
            unlisted: 0,
            deleting: false,
            planted: true,
        };
        self.groups.insert(name.to_ascii_lowercase(), group);
    }

    pub(in crate::azure) fn has_group(&self, name: &str) -> bool {
        self.groups.contains_key(&name.to_ascii_lowercase())
    }

    pub(super) fn list_groups(&mut self, request: &Request<'_>) -> Answer {
        let wanted = request.parameter("$filter").and_then(|filter| {
            let (name, value) = filter
                .strip_prefix("tagName eq '")?
                .split_once("' and tagValue eq '")?;
            Some((name.to_owned(), value.strip_suffix('\'')?.to_owned()))
        });
        let Some((name, value)) = wanted else {
            return refuse(400, "InvalidFilterInQueryString", "The filter is not understood.");
        };
        let matches = |group: &Group| group.tags.get(&name).and_then(Value::as_str) == Some(&value);
        let from: usize = request
            .parameter("$skiptoken")
            .and_then(|token| token.parse().ok())
            .unwrap_or(0);
        let mut all = Vec::new();
        for group in self.groups.values_mut() {
            if group.unlisted > 0 {
                group.unlisted -= 1;
            } else if matches(group) {
                all.push(group.show());
            }
        }
        for (group, left) in &mut self.ghosts {
            if *left > 0 && matches(group) {
                *left -= 1;
                all.push(group.show());
            }
        }
        let page = match self.settings.page {
            0 => usize::MAX,
            page => page,
        };
        let mut body = json!({ "value": all.iter().skip(from).take(page).collect::<Vec<_>>() });
        if all.len() > from.saturating_add(page) {
            let mut next =
                url::Url::parse(&format!("{}{}", request.base, request.path)).expect("an address of ours");
            next.query_pairs_mut()
                .extend_pairs(request.query.iter().filter(|(key, _)| key != "$skiptoken"))
                .append_pair("$skiptoken", &(from + page).to_string());
            body["nextLink"] = json!(next.as_str());
        }
        answer(200, body)
    }

    pub(super) fn put_group(&mut self, request: &Request<'_>) -> Answer {
        let name = request.path.rsplit('/').next().unwrap_or_default();
        let status = match self.groups.get(&request.group()) {
            Some(group) if group.deleting => {
                return refuse(
                    409,
                    "ResourceGroupBeingDeleted",
                    "The resource group is being deleted.",
                );
            }
            Some(group) if group.location != request.body["location"] => {
                return refuse(409, "InvalidResourceGroupLocation", "It is in another location.");
            }
            Some(_) => 200,
            None => 201,
        };
        let group = Group {
            name: name.into(),
            location: request.body["location"].clone(),
            tags: request.body["tags"].clone(),
            unlisted: self.settings.unlisted,
            deleting: false,
            planted: false,
        };
        let shown = group.show();
        self.groups.insert(request.group(), group);
        answer(status, shown)
    }

    pub(super) fn delete_group(&mut self, request: &Request<'_>) -> Answer {
        let name = request.group();
        let Some(group) = self.groups.get_mut(&name) else {
            return refuse(404, "ResourceGroupNotFound", "Resource group could not be found.");
        };
        if group.planted {
            self.violations
                .push(format!("the group {name} of somebody else was to be deleted"));
        }
        group.deleting = true;
        let polls = self.settings.deletion_polls;
        let number = self.begin(What::RemoveGroup(name), polls, request.fail_later);
        let url = format!(
            "{}/subscriptions/{SUBSCRIPTION}/operationresults/{number}?api-version=2022-09-01",
            request.base
        );
        Answer {
            status: 202,
            headers: vec![("location", url), ("retry-after", "0".into())],
            body: None,
        }
    }
}

impl Group {
    pub(super) fn show(&self) -> Value {
        json!({
            "id": format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/{}", self.name),
            "name": self.name,
            "type": "Microsoft.Resources/resourceGroups",
            "location": self.location,
            "tags": self.tags,
            "properties": { "provisioningState": if self.deleting { "Deleting" } else { "Succeeded" } },
        })
    }
}
