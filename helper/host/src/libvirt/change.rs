//! What changes a domain.

use super::Virsh;
use crate::hypervisor::{
    Answer, Claim, Host, HostError, MAX_PROGRESS_BYTES, MigrateOptions, Migration, Nic,
};
use crate::xml::{BONDS_NAMESPACE, Bonds, CLAIM_NAMESPACE, PROGRESS_NAMESPACE, write};

impl Host for Virsh {
    fn set_bonds<'a>(&'a self, name: &'a str, bonds: Option<&'a Bonds>) -> Answer<'a, ()> {
        Box::pin(async move {
            let element = bonds.map(Bonds::to_metadata);
            self.set_metadata(name, BONDS_NAMESPACE, element.as_deref())
                .await
        })
    }

    fn set_progress<'a>(&'a self, name: &'a str, record: Option<&'a str>) -> Answer<'a, ()> {
        Box::pin(async move {
            if record.is_some_and(|record| record.len() > MAX_PROGRESS_BYTES) {
                return Err(HostError::Refused {
                    host: self.connection.uri.clone(),
                    what: "virsh metadata".to_owned(),
                    reason: format!("a record is at most {MAX_PROGRESS_BYTES} bytes"),
                });
            }
            let element = record.map(write::progress_to_metadata);
            self.set_metadata(name, PROGRESS_NAMESPACE, element.as_deref())
                .await
        })
    }

    fn set_claim<'a>(&'a self, name: &'a str, claim: &'a Claim) -> Answer<'a, ()> {
        Box::pin(async move {
            let namespace = format!("{CLAIM_NAMESPACE}{}", claim.token);
            let element = match claim.text.as_str() {
                "" => None,
                text => Some(write::claim_to_metadata(text)),
            };
            self.set_metadata(name, &namespace, element.as_deref())
                .await
        })
    }

    fn detach<'a>(&'a self, name: &'a str, nic: &'a Nic) -> Answer<'a, ()> {
        Box::pin(self.detach_device(name, nic))
    }

    fn attach<'a>(&'a self, name: &'a str, device: &'a str) -> Answer<'a, ()> {
        Box::pin(self.attach_device(name, device))
    }

    fn check_device<'a>(&'a self, device: &'a str, together: usize) -> Answer<'a, ()> {
        Box::pin(self.check_device_here(device, together))
    }

    fn check_migration<'a>(&'a self, options: &'a MigrateOptions) -> Answer<'a, ()> {
        Box::pin(self.check_options(options))
    }

    fn migrate<'a>(
        &'a self,
        name: &'a str,
        destination: &'a str,
        options: &'a MigrateOptions,
    ) -> Answer<'a, Box<dyn Migration>> {
        Box::pin(self.start_migration(name, destination, options))
    }

    fn cancel<'a>(&'a self, name: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            self.about(name, "domjobabort", &[], None).await?;
            Ok(())
        })
    }

    fn unpause<'a>(&'a self, name: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            self.about(name, "resume", &[], None).await?;
            Ok(())
        })
    }

    fn pause<'a>(&'a self, name: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            self.about(name, "suspend", &[], None).await?;
            Ok(())
        })
    }

    fn speed<'a>(&'a self, name: &'a str) -> Answer<'a, u64> {
        Box::pin(self.speed_of(name))
    }

    fn set_speed<'a>(&'a self, name: &'a str, bytes_per_s: u64) -> Answer<'a, ()> {
        Box::pin(self.set_speed_of(name, bytes_per_s))
    }

    fn set_max_downtime<'a>(&'a self, name: &'a str, ms: u64) -> Answer<'a, ()> {
        Box::pin(self.set_max_downtime_of(name, ms))
    }
}
