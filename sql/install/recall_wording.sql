-- recall_wording: what letters to recipients say: that which asks, and that which reminds.

INSERT INTO letter_kind (kind, about, required, description) VALUES
    ('recall', 'recall', '{due_on,id_name,id,recalled}', 'to a recipient that is asked to delete a patient''s data'),
    ('recall_reminder', 'recall', '{due_on,chased_on,id_name,id,recalled}', 'to a recipient that was reminded');
INSERT INTO letter_fact (about, fact, description) VALUES
    ('recall', 'notice', 'the number of the recall notice'),
    ('recall', 'recipient', 'name and contact of the recipient'),
    ('recall', 'released_on', 'the day on which the data was released'),
    ('recall', 'registers', 'the registers whose data was released'),
    ('recall', 'reference', 'the reference of the release'),
    ('recall', 'recalled', 'the registers whose data is to be deleted'),
    ('recall', 'due_on', 'the day by which it is to be deleted'),
    ('recall', 'chased_on', 'the day on which the recipient was reminded'),
    ('recall', 'id_name', 'what kind of id the recipient knows the patient by'),
    ('recall', 'id', 'the id under which the recipient knows the patient'),
    ('recall', 'contact', 'how to reach the registry, as the policy has it');
INSERT INTO letter_template (kind, version, body) VALUES
('recall', 0, $letter$Our reference: recall notice {notice}

To {recipient}

# Please delete one patient's data by {due_on}

On {released_on} we gave you data of {registers}. The reference is {reference}.
A patient in that data has opted out.

# What to delete

Please delete all that you hold of this patient from {recalled}:

- in your data
- in copies that you made
- with those whom you gave it to

# Who the patient is

The patient's {id_name} is {id}.
Use it for nothing else. Do not keep this letter with the data.

# What to tell us

Tell us the day on which it was done.
If you found nothing, tell us. If you must keep the data, tell us why.
{?contact}Please contact us {contact}.$letter$),
('recall_reminder', 0, $letter$Our reference: recall notice {notice}

To {recipient}

# Please delete one patient's data by {due_on}

On {released_on} we gave you data of {registers}. The reference is {reference}.
A patient in that data has opted out.

We reminded you of this on {chased_on}. We do not have your answer yet.

# What to delete

Please delete all that you hold of this patient from {recalled}:

- in your data
- in copies that you made
- with those whom you gave it to

# Who the patient is

The patient's {id_name} is {id}.
Use it for nothing else. Do not keep this letter with the data.

# What to tell us

Tell us the day on which it was done.
If you found nothing, tell us. If you must keep the data, tell us why.
{?contact}Please contact us {contact}.$letter$);
