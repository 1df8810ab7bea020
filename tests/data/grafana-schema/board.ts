import * as raw from './node_modules/@grafana/schema/dist/types/raw/dashboard/x/types.gen';
import * as stat from './node_modules/@grafana/schema/dist/types/raw/composable/stat/panelcfg/x/types.gen';
import * as table from './node_modules/@grafana/schema/dist/types/raw/composable/table/panelcfg/x/types.gen';
import * as timeseries from './node_modules/@grafana/schema/dist/types/raw/composable/timeseries/panelcfg/x/types.gen';
import * as timeline from './node_modules/@grafana/schema/dist/types/raw/composable/statetimeline/panelcfg/x/types.gen';

interface PrometheusTarget {
  datasource?: raw.DataSourceRef;
  expr: string;
  refId: string;
  legendFormat?: string;
  format?: 'time_series' | 'table' | 'heatmap';
  instant?: boolean;
  range?: boolean;
  interval?: string;
  intervalFactor?: number;
  exemplar?: boolean;
  hide?: boolean;
  editorMode?: 'code' | 'builder';
}
interface PrometheusAnnotation extends raw.AnnotationQuery {
  expr: string;
  step?: string;
  titleFormat?: string;
  textFormat?: string;
  tagKeys?: string;
  useValueForTime?: boolean;
}
interface DataLink { title: string; url: string; targetBlank?: boolean; }
interface Field<C> extends Omit<raw.FieldConfig, 'custom' | 'links'> { custom?: C; links?: DataLink[]; }
interface FieldConfigSource<C> extends Omit<raw.FieldConfigSource, 'defaults'> { defaults: Field<C>; }
interface TypedPanel<T extends string, O, C> extends Omit<raw.Panel, 'fieldConfig' | 'type' | 'options' | 'targets'> {
  type: T;
  options: O;
  fieldConfig: FieldConfigSource<C>;
  targets: PrometheusTarget[];
}
type AnyPanel =
  | TypedPanel<'stat', stat.Options, {}>
  | TypedPanel<'table', table.Options, table.FieldConfig>
  | TypedPanel<'timeseries', timeseries.Options, timeseries.FieldConfig>
  | TypedPanel<'state-timeline', timeline.Options, timeline.FieldConfig>;

interface Row extends Omit<raw.RowPanel, 'panels'> { panels: AnyPanel[]; }

export interface Board extends Omit<raw.Dashboard, 'panels' | 'annotations'> {
  annotations?: { list?: PrometheusAnnotation[] };
  panels?: Array<AnyPanel | Row>;
}
