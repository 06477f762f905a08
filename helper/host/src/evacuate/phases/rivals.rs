//! Of all who would evacuate or recover a domain at the same moment, one does, however slow their hosts are.
//!
//! A hypervisor has no compare-and-swap for metadata, and processes of several machines no other place in common. But
//! each can have an element of its own there, and a look shows all of them and the record at one moment. So: write a
//! claim; look; write the record only if one and the same look shows the own claim, nobody else's, and no record of
//! another one; remove the claim only once the record stands, or will not come. Of two, the one that claims later
//! looks later, and sees the other's claim or its record, of which one stands at any moment. No time is compared.
//!
//! Of those who see each other the one whose token comes first waits for the others, who withdraw.

use super::step::Step;
use crate::evacuate::action::{ActionKey, ActionKind};
use crate::evacuate::cause::{Cause, CauseCode};
use crate::evacuate::input::{ClaimFact, RecordFact, SideFacts};
use crate::evacuate::progress::Owner;
use crate::evacuate::spec::Side;
use crate::evacuate::state::Evacuation;
use crate::words::{printable, quoted};
use crate::xml::CLAIM_NAMESPACE;

/// Tries at writing or removing a claim.
const FAILURES: u32 = 3;
/// Claims of others that are removed in one run: who may edit the domain can write ever new ones.
const MOST_REMOVED: u32 = 32;

impl Evacuation {
    /// That look, which is of now, shows our claim and nobody else's.
    pub(super) fn claim(&self, side: Side, facts: &SideFacts) -> Result<(), Step> {
        if let Some(at) = self.notes.claim.filter(|at| *at != side) {
            // It was written where the domain has left.
            return Err(self.unclaim(at, self.own_token())?);
        }
        let stands = facts.claims.iter().any(|one| one.token == self.own_token());
        let mut rivals: Vec<&ClaimFact> = self.rivals(facts).collect();
        rivals.sort_by_key(|one| &one.token);
        if let Some(dead) = rivals.iter().find(|one| self.is_dead(side, one)) {
            return match self.may_remove() {
                true => Err(self.unclaim(side, &dead.token)?),
                false => Err(Step::Fail(self.claimed_by(dead))),
            };
        }
        if let Some(first) = rivals.first() {
            let withdraws = match stands {
                true => first.token.as_str() < self.own_token(),
                // What a recovery finds may be left by a process that was killed.
                false => self.notes.recovery.is_none(),
            };
            let until_ms = self.since_ms(side, first) + self.limits.rival_ms;
            if withdraws || self.now_ms >= until_ms {
                return Err(Step::Fail(self.claimed_by(first)));
            }
            return Err(self.wait(side, until_ms));
        }
        if stands {
            return Ok(());
        }
        let tries = self.tries(ActionKey::Claim(side));
        if tries.accepted_ms.is_some() {
            let message = "somebody removed this process's claim from the domain's metadata";
            let code = CauseCode::RecordNotWritten;
            return Err(Step::Fail(Cause::new(code, message)));
        }
        give_up(tries.failures, tries.last.map(|failure| failure.message))?;
        // A removal that timed out must not take this one away.
        let until_ms = self.notes.claim_doubt_until_ms;
        if self.now_ms < until_ms {
            return Err(Step::WaitUntil(until_ms));
        }
        let owner = self.record.progress.owner.clone();
        let owner = Box::new(owner.expect("whoever runs is the owner"));
        Err(self.attempt(ActionKind::Claim { side, owner }))
    }

    /// Our claim is removed before the step that leaves what was claimed, as far as it can be.
    pub(super) fn withdraw(&self) -> Option<Step> {
        let side = self.notes.claim?;
        // A record or claim whose writing timed out may be written yet.
        let until_ms = self.notes.record_doubt_until_ms;
        if self.now_ms < until_ms {
            return Some(Step::WaitUntil(until_ms));
        }
        self.unclaim(side, self.own_token()).ok()
    }

    /// What others left of their claims goes before our record does: while that stands they are none, and who finds
    /// its own gone afterwards is refused.
    pub(super) fn clear_claims(&self, side: Side) -> Result<(), Step> {
        let is_held = |facts: &&SideFacts| matches!(&facts.record, RecordFact::Present(record) if self.is_ours(record));
        let facts = self.view(side).facts.as_ref().filter(is_held);
        let facts = facts.filter(|_| self.may_remove());
        let rival = facts.and_then(|facts| self.rivals(facts).next());
        match rival.map(|rival| self.unclaim(side, &rival.token)) {
            Some(Ok(step)) => Err(step),
            Some(Err(_)) | None => Ok(()),
        }
    }

    /// Somebody who lives, as far as this host knows, claims the domain.
    pub(super) fn rival(&self, side: Side, facts: &SideFacts) -> Option<Cause> {
        let mut rivals = self.rivals(facts);
        let alive = rivals.find(|one| !self.is_dead(side, one));
        alive.map(|rival| self.claimed_by(rival))
    }

    fn rivals<'a>(&self, facts: &'a SideFacts) -> impl Iterator<Item = &'a ClaimFact> {
        let own = self.own_token().to_owned();
        facts.claims.iter().filter(move |one| one.token != own)
    }

    fn own_token(&self) -> &str {
        let owner = self.record.progress.owner.as_ref();
        owner.map_or("", |owner| owner.token.as_str())
    }

    /// `Err` once it failed too often.
    fn unclaim(&self, side: Side, token: &str) -> Result<Step, Step> {
        let tries = self.tries(ActionKey::Unclaim(side));
        give_up(tries.failures, tries.last.map(|failure| failure.message))?;
        let token = token.to_owned();
        Ok(self.attempt(ActionKind::Unclaim { side, token }))
    }

    fn may_remove(&self) -> bool {
        self.notes.rivals_removed < MOST_REMOVED
    }

    fn since_ms(&self, side: Side, rival: &ClaimFact) -> u64 {
        let since_ms = self.notes.rivals.get(&(side, rival.token.clone()));
        since_ms.copied().unwrap_or(self.now_ms)
    }

    /// Whoever wrote it has ended without removing it.
    fn is_dead(&self, side: Side, rival: &ClaimFact) -> bool {
        let own = self.record.progress.owner.as_ref();
        let own = own.map(|owner| owner.host.as_str());
        if rival.owner.as_ref().map(|owner| owner.host.as_str()) == own {
            // It would have this machine's lock, which we have.
            return true;
        }
        let Some(recovery) = &self.notes.recovery else {
            return false;
        };
        let watched_ms = self.now_ms - self.since_ms(side, rival);
        watched_ms >= self.limits.rival_ms || recovery.dead.as_ref() == Some(&rival.token)
    }

    fn claimed_by(&self, rival: &ClaimFact) -> Cause {
        let domain = &self.record.spec.domain;
        let owner = rival.owner.as_ref();
        let owner = owner.map_or_else(
            || "a process that this version does not understand".to_owned(),
            Owner::in_words,
        );
        let message = format!(
            "another evacuation of domain {} begins at the same moment ({owner}); if that process is over, remove its \
             claim: `virsh metadata {} --uri {CLAIM_NAMESPACE}{} --remove`, with --live, --config or both",
            printable(domain),
            quoted(domain),
            printable(&rival.token)
        );
        Cause::new(CauseCode::Claimed, message)
    }
}

fn give_up(failures: u32, last: Option<String>) -> Result<(), Step> {
    match last {
        Some(message) if failures >= FAILURES => {
            let code = CauseCode::RecordNotWritten;
            Err(Step::Fail(Cause::new(code, message)))
        }
        _ => Ok(()),
    }
}
