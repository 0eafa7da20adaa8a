"""The work: whose records, since when, and where a record names its patient. What engines must agree on is here."""

import json

#: The element that names the patient, for each type of the Patient compartment that these stores hold. `None` is the
#: patient's own row. The compartment has more paths (CareTeam.participant.member, Observation.performer, …), which in
#: these stores never add a row: one path is kinder to the rivals, and the comparison by content proves it enough.
PATIENT_ELEMENT = {
    "AllergyIntolerance": "patient", "CarePlan": "subject", "CareTeam": "subject", "Claim": "patient",
    "Condition": "subject", "Device": "patient", "DiagnosticReport": "subject", "Encounter": "subject",
    "ExplanationOfBenefit": "patient", "ImagingStudy": "subject", "Immunization": "patient",
    "MedicationRequest": "subject", "Observation": "subject", "Patient": None, "Procedure": "subject",
}


class Job:
    """One export: a Group file, and the instant after which a record must have been updated, or None."""

    def __init__(self, name, title, group, since=None):
        self.name, self.title, self.group, self.since = name, title, group, since


def member_references(group):
    """`Patient/<id>` for each member of a Group file."""
    with open(group, "rb") as file:
        return [member["entity"]["reference"] for member in json.load(file).get("member", [])]
