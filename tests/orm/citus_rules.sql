-- What Citus refuses, told by PostgreSQL's catalogue alone. The rules are those of its documentation ("Creating and
-- Modifying Distributed Objects") and of the checks that its functions of the same names make.
CREATE SCHEMA citus;
CREATE TABLE citus.tables (relid oid PRIMARY KEY, attnum int2, colocation text);

CREATE FUNCTION citus.check_foreign_keys(given regclass) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  own citus.tables;
  target citus.tables;
  key record;
BEGIN
  SELECT * INTO own FROM citus.tables WHERE relid = given;
  FOR key IN SELECT * FROM pg_constraint WHERE contype = 'f' AND conrelid = given LOOP
    SELECT * INTO target FROM citus.tables WHERE relid = key.confrelid;
    IF target.relid IS NULL THEN
      RAISE 'referenced table "%" must be a distributed table or a reference table', key.confrelid::regclass;
    END IF;
    IF own.attnum IS NULL AND target.attnum IS NOT NULL THEN
      RAISE 'foreign keys from reference tables to distributed tables are not supported';
    END IF;
    IF own.attnum = ANY (key.conkey) AND (key.confdeltype IN ('n', 'd') OR key.confupdtype IN ('n', 'd', 'c')) THEN
      RAISE 'SET NULL, SET DEFAULT or CASCADE is not supported when distribution key is included';
    END IF;
    IF target.attnum IS NOT NULL THEN
      IF own.colocation <> target.colocation THEN
        RAISE 'relations are not colocated';
      END IF;
      IF array_position(key.conkey, own.attnum) IS NULL
        OR array_position(key.conkey, own.attnum) IS DISTINCT FROM array_position(key.confkey, target.attnum) THEN
        RAISE 'foreign keys are supported including partition column in the same ordinal in both tables';
      END IF;
    END IF;
  END LOOP;
  IF EXISTS (SELECT FROM pg_trigger WHERE tgrelid = given AND NOT tgisinternal) THEN
    RAISE 'triggers are not supported on distributed tables and reference tables';
  END IF;
END
$$;

CREATE FUNCTION create_reference_table(table_name regclass) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO citus.tables VALUES (table_name, NULL, NULL);
  PERFORM citus.check_foreign_keys(table_name);
END
$$;

CREATE FUNCTION create_distributed_table(table_name regclass, distribution_column text, colocate_with text)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  own pg_attribute;
  first record;
  empty boolean;
BEGIN
  SELECT * INTO STRICT own FROM pg_attribute WHERE attrelid = table_name AND attname = distribution_column;
  IF colocate_with = 'none' THEN
    colocate_with := table_name::text;
  ELSE
    SELECT a.atttypid, t.colocation INTO STRICT first FROM citus.tables AS t
      JOIN pg_attribute AS a ON a.attrelid = t.relid AND a.attnum = t.attnum WHERE t.relid = colocate_with::regclass;
    IF first.atttypid <> own.atttypid THEN
      RAISE 'cannot colocate tables: distribution column types don''t match';
    END IF;
    colocate_with := first.colocation;
  END IF;
  INSERT INTO citus.tables VALUES (table_name, own.attnum, colocate_with);
  IF EXISTS (
    SELECT FROM pg_index WHERE indrelid = table_name AND (indisunique OR indisexclusion)
    AND own.attnum <> ALL ((indkey::int2[])[0:indnkeyatts - 1])
  ) THEN
    RAISE 'distributed relations cannot have UNIQUE, EXCLUDE, or PRIMARY KEY constraints without partition column';
  END IF;
  EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE %I IS NULL)', table_name, distribution_column) INTO empty;
  IF empty THEN
    RAISE 'the partition column can not be NULL';
  END IF;
  PERFORM citus.check_foreign_keys(table_name);
END
$$;
